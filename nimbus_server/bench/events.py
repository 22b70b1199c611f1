"""Requests of events as an application sends them, each request new and next to free to make."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.event_service_pb2 import IngestEventsRequest

NAMES = ["page_view", "click", "signup", "login", "logout", "purchase", "add_to_cart", "search", "share", "error"]
PLANS = ["free", "pro", "team"]
# Requests that are made beforehand: together a second of an application's life, at even distances.
SLOTS = 100
# How many requests back a repeated event reaches at most.
REPEATS_WITHIN = 10
# The second that stands in what is made beforehand, to be replaced: all seconds have the same length.
TEMPLATE_SECOND = datetime(2020, 1, 1, tzinfo=UTC)

Encode = Callable[[str, list["SentEvent"]], bytes]


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One event; `second` and `microsecond` are its ts, and `number` tells it from the others of its second."""

    run: str
    second: datetime
    microsecond: int
    number: int

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"{self.run}-{_iso(self.second)}-{self.number}"

    @property
    def name(self) -> str:
        """One of NAMES."""
        return NAMES[self.number % 7919 % len(NAMES)]

    @property
    def user_id(self) -> str:
        """One of ten thousand users."""
        return f"user-{self.number * 7919 % 10_007}"

    @property
    def props(self) -> dict[str, object]:
        """A few small properties."""
        n = self.number
        return {"plan": PLANS[n % len(PLANS)], "page": f"/items/{n * 31 % 1009}", "amount": n % 500}


class Requests:
    """Endless requests of `count` events for a project, each with a ts and a key of its own.

    A second's worth of requests is made here. What `next` returns is a copy with another second in it, which costs
    about a tenth of a millisecond per thousand events. With `repeating`, every tenth event has come before.
    """

    def __init__(self, encode: Encode, project_id: str, count: int, *, repeating: bool = False) -> None:
        run, step = secrets.token_hex(4), 1_000_000 // SLOTS // count
        self._slots = []
        for slot in range(SLOTS):
            numbers = [slot * count + index for index in range(count)]
            if repeating:
                numbers = [_repeated(number, slot, count) if number % 10 == 9 else number for number in numbers]
            events = [SentEvent(run, TEMPLATE_SECOND, number * step, number) for number in numbers]
            self._slots.append(encode(project_id, events))
        self._made = 0
        self._start = datetime.fromtimestamp(int(time.time()), UTC)
        self._template_marks = _marks(TEMPLATE_SECOND)
        self._marks = self._template_marks

    def next(self) -> bytes:
        """The next request."""
        second, slot = divmod(self._made, SLOTS)
        self._made += 1
        if slot == 0:
            self._marks = _marks(self._start + timedelta(seconds=second))
        raw = self._slots[slot]
        for old, new in zip(self._template_marks, self._marks, strict=True):
            raw = raw.replace(old, new)
        return raw


def as_json(project_id: str, events: list[SentEvent]) -> bytes:
    """A body of POST /v1/events."""
    sent = [
        {
            "name": e.name,
            "ts": f"{_iso(e.second)}.{e.microsecond:06}Z",
            "user_id": e.user_id,
            "idempotency_key": e.key,
            "props": e.props,
        }
        for e in events
    ]
    return orjson.dumps({"project_id": project_id, "events": sent})


def as_proto(project_id: str, events: list[SentEvent]) -> bytes:
    """A serialized IngestEventsRequest, which an IngestEventStreamRequest looks like too."""
    request = IngestEventsRequest(project_id=project_id)
    for e in events:
        event = request.events.add(
            name=e.name, user_id=e.user_id, idempotency_key=e.key, props_json=orjson.dumps(e.props)
        )
        event.ts.FromDatetime(e.second + timedelta(microseconds=e.microsecond))
    return request.SerializeToString()


def _repeated(number: int, slot: int, count: int) -> int:
    """The number of an event that came up to REPEATS_WITHIN requests before, or just before where there are none."""
    earlier = number - count * min(slot, 1 + number // 10 % REPEATS_WITHIN)
    return earlier - 1 if earlier % 10 == 9 else earlier  # that one was a repeat itself


def _marks(second: datetime) -> tuple[bytes, bytes]:
    """What says the second in a request: as text, and as the field of a Timestamp."""
    return _iso(second).encode(), Timestamp(seconds=int(second.timestamp())).SerializeToString()


def _iso(second: datetime) -> str:
    return f"{second:%Y-%m-%dT%H:%M:%S}"

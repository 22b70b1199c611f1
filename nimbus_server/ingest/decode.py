"""What events of every form have in common: when and by what right they came, and the checks that make one valid."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import NULL, jsonb, text
from nimbus_server.ingest.event import (
    EVENTS_MAX,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    NAME_LENGTH_MAX,
    TS_AHEAD_MAX,
    TS_MIN,
    USER_ID_LENGTH_MAX,
    EventRefusedError,
    NewEvent,
    Refusal,
)

T = TypeVar("T")
# Half the time of calling NewEvent.
_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Origin:
    """When and by what right a batch came; all times in microseconds since 1970.

    `default_ts` is the ts of events without one: the signature's time, or that of arrival. `id_prefix` begins the
    identities of events without a key; `repeatable` says that another attempt would come with the same. `key_id` is
    the API key that signed, None for a person. `skew` is by how much the sender's clock is behind, None where the
    sender did not say. Older events than `ts_min` are not kept.
    """

    received_at: int
    default_ts: int
    id_prefix: bytes
    repeatable: bool
    key_id: str | None = None
    skew: int | None = None
    ts_min: int = TS_MIN


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a request that can be stored, and those that can't."""

    events: list[NewEvent]
    refusals: list[Refusal]


def check_count(count: int) -> None:
    """Raise NimbusError with BATCH_EMPTY or BATCH_TOO_LARGE unless a request may have so many events."""
    if count == 0:
        raise field_error(Reason.BATCH_EMPTY, "events", "events must hold at least one event.")
    if count > EVENTS_MAX:
        raise field_error(Reason.BATCH_TOO_LARGE, "events", f"events may hold at most {EVENTS_MAX} events.")


def decode(events: Iterable[T], origin: Origin, read: Callable[[int, T, Origin], NewEvent], first: int = 0) -> Batch:
    """Read events, of which the first has the index `first`. `read` raises EventRefusedError for a bad one."""
    valid, refusals = [], []
    for place, event in enumerate(events, start=first):
        try:
            valid.append(read(place, event, origin))
        except EventRefusedError as error:
            refusals.append(Refusal(place, error.field, error.reason, error.message))
    return Batch(valid, refusals)


def valid_event(
    place: int,
    name: str,
    ts: int | None,
    user_id: str | None,
    idempotency_key: str | None,
    props: bytes,
    origin: Origin,
) -> NewEvent:
    """The event with these fields; `props` are as encode_props gives them. Raises EventRefusedError."""
    texts = _name(name)
    texts += NULL if user_id is None else _text("user_id", user_id, USER_ID_LENGTH_MAX)
    ts_is_stable = origin.skew is None
    if ts is None:
        at = origin.default_ts if ts_is_stable else origin.received_at
    else:
        at = ts if origin.skew is None else ts + origin.skew
        if not origin.ts_min <= at <= origin.received_at + TS_AHEAD_MAX:
            raise _out_of_range(origin)
    if idempotency_key is None:
        event_id = origin.id_prefix + place.to_bytes(2)
        floating = origin.repeatable and not ts_is_stable
        return _new(NewEvent, (place, event_id, at, floating, name, texts + NULL + jsonb(props)))
    texts += _text("idempotency_key", idempotency_key, IDEMPOTENCY_KEY_LENGTH_MAX)
    event_id = identity.keyed(texts, None if ts_is_stable else ts)
    return _new(NewEvent, (place, event_id, at, ts is None or not ts_is_stable, name, texts + jsonb(props)))


# A project's events have few names.
@lru_cache(maxsize=4096)
def _name(name: str) -> bytes:
    if not name:
        raise EventRefusedError("name", Reason.FIELD_REQUIRED, "name is required.")
    return _text("name", name, NAME_LENGTH_MAX)


def _text(field: str, value: str, length_max: int) -> bytes:
    if 0 < len(value) <= length_max and "\0" not in value:
        try:
            return text(value.encode())
        except UnicodeEncodeError:
            pass
    if not value:
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not be empty: leave it out instead.")
    if len(value) > length_max:
        raise EventRefusedError(field, Reason.FIELD_TOO_LONG, f"{field} must have at most {length_max} characters.")
    raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not contain NUL or half a character.")


def _out_of_range(origin: Origin) -> EventRefusedError:
    oldest = "the year 2000" if origin.ts_min == TS_MIN else "the oldest that this server keeps"
    return EventRefusedError("ts", Reason.TS_OUT_OF_RANGE, f"ts must lie between {oldest} and 24 hours from now.")

"""What goes to Nimbus and what comes back, without protobuf."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """One occurrence of something, with its identity.

    `ts` and `idempotency_key` are fixed when the object is made, to now and to a random key unless they are given. So
    the same object is the same event however often it is sent: by a retry of the client, or by the caller after an
    error. Make a new object for a new occurrence.
    """

    name: str
    user_id: str | None
    props: Mapping[str, object] | None
    ts: datetime
    idempotency_key: str
    anonymous_id: str | None
    context: Mapping[str, object] | None

    def __init__(
        self,
        name: str,
        user_id: str | None = None,
        props: Mapping[str, object] | None = None,
        ts: datetime | None = None,
        idempotency_key: str | None = None,
        anonymous_id: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        """Raises ValueError where `ts` has no time zone."""
        values = {
            "name": name,
            "user_id": user_id,
            "props": props,
            "ts": datetime.now(UTC) if ts is None else aware(ts, "ts"),
            "idempotency_key": uuid.uuid4().hex if idempotency_key is None else idempotency_key,
            "anonymous_id": anonymous_id,
            "context": context,
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)


@dataclass(frozen=True, slots=True)
class EventError:
    """What was wrong with one event: `index` in the list that was sent, field, reason (such as `FIELD_REQUIRED`)."""

    index: int
    field: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the events of one `send`. `accepted` ones are durable; `duplicates` were stored before."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: tuple[EventError, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as Nimbus keeps it; `seq` is its position in the project's log.

    Numbers in `props` and `context` are floats in a list; in a subscription integers are int, of any size. `props_json`
    and `context_json`, of events of a subscription, have every number to the last digit.
    """

    id: str
    seq: int
    name: str
    user_id: str | None
    props: Mapping[str, object]
    ts: datetime
    idempotency_key: str | None
    received_at: datetime
    props_json: bytes | None = field(default=None, repr=False, compare=False)
    anonymous_id: str | None = None
    context: Mapping[str, object] = field(default_factory=dict)
    context_json: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The next events of a subscription, and the position that is reached with them."""

    events: tuple[StoredEvent, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Consumer:
    """A reader whose position the server keeps: it is done with everything up to there.

    `lag` is the number of events behind that, whatever it filters; `active` says whether it has a stream open.
    `acked_at` is when its position was last moved, or else when it came into being.
    """

    name: str
    position: int
    lag: int
    active: bool
    acked_at: datetime


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """The number of events in the bucket that starts at `ts` (UTC)."""

    ts: datetime
    value: float


def aware(moment: datetime, field: str) -> datetime:
    """The same moment. Raises ValueError where it has no time zone, and so could be any of two dozen moments.

    Raises TypeError for what is no datetime.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"{field} must be a datetime, not {type(moment).__name__}.")
    if moment.utcoffset() is None:
        raise ValueError(f"{field} has no time zone: use datetime.now(UTC), or {field}.replace(tzinfo=...).")
    return moment

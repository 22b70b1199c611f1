"""An event on its way in, and the limits that it keeps."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from nimbus_server.errors import Reason

EVENTS_MAX = 1000
NAME_LENGTH_MAX = 200
USER_ID_LENGTH_MAX = 200
IDEMPOTENCY_KEY_LENGTH_MAX = 200
PROPS_BYTES_MAX = 10_240
PROPS_DEPTH_MAX = 5
TS_MIN = datetime(2000, 1, 1, tzinfo=UTC)
TS_AHEAD_MAX = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A valid event that is not stored yet.

    `props` is a JSON object in UTF-8. `ts_is_default` says that the client gave no ts; with an idempotency key the
    event then has the ts with which its key came first.
    """

    id: UUID
    ts: datetime
    ts_is_default: bool
    name: str
    user_id: str | None
    idempotency_key: str | None
    props: bytes


class EventRefusedError(Exception):
    """One event can't be stored, because of one of its fields."""

    def __init__(self, field: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was wrong with the event at `index` of a batch."""

    index: int
    field: str
    reason: Reason
    message: str

"""An event on its way in, and the limits that it keeps."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from nimbus_server.clock import DAY, micros
from nimbus_server.errors import Reason, encodable

EVENTS_MAX = 1000
NAME_LENGTH_MAX = 200
USER_ID_LENGTH_MAX = 200
ANONYMOUS_ID_LENGTH_MAX = 200
IDEMPOTENCY_KEY_LENGTH_MAX = 200
# Of props, and of context.
PROPS_BYTES_MAX = 32_768
PROPS_DEPTH_MAX = 20
TS_MIN = micros(datetime(2000, 1, 1, tzinfo=UTC))
TS_AHEAD_MAX = DAY


class NewEvent(NamedTuple):
    """A valid event that is not stored yet; a tuple, because a server makes 150,000 of them a second.

    `place` is its index in the request. `id` has 16 bytes. `ts` is in microseconds since 1970. `floating` says that
    another attempt to send it would come with another `ts`: the one it came with first holds. `texts` are name,
    user_id, idempotency_key, anonymous_id, context and props as COPY takes them (see copy_rows.py).
    """

    place: int
    id: bytes
    ts: int
    floating: bool
    name: str
    texts: bytes


class EventRefusedError(Exception):
    """One event can't be stored, because of one of its fields."""

    def __init__(self, field: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.field = encodable(field)
        self.reason = reason
        self.message = encodable(message)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was wrong with the event at `index` of a batch."""

    index: int
    field: str
    reason: Reason
    message: str

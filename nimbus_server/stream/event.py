"""An event on its way out."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class StreamedEvent(NamedTuple):
    """An event of a log, as it is stored. `props_json` is its props as JSON text."""

    id: UUID
    seq: int
    ts: datetime
    received_at: datetime
    name: str
    user_id: str | None
    idempotency_key: str | None
    props_json: str

"""An event on its way out."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class StreamedEvent(NamedTuple):
    """An event of a log, as it is stored. `props_json` and `context_json` are JSON text."""

    id: UUID
    seq: int
    ts: datetime
    received_at: datetime
    name: str
    user_id: str | None
    idempotency_key: str | None
    props_json: str
    anonymous_id: str | None = None
    context_json: str = "{}"

    @property
    def json_characters(self) -> int:
        """How many its props and its context have together."""
        return len(self.props_json) + len(self.context_json)

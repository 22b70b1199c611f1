"""What the requests of the catalog have in common."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nimbus_server.analyses.literal import literal
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.selector import NAME_LENGTH_MAX, NAMES_MAX
from nimbus_server.clock import micros, moment
from nimbus_server.rpc.fields import filter_field, int_field, text_field, time_field, timestamp

LIMIT, LIMIT_MAX = 100, 1_000
SEARCH_LENGTH_MAX = 500
SINCE = timedelta(days=30)


def names_field(names: Sequence[str]) -> frozenset[str] | None:
    """The names in `name`, None for all. Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID."""
    return frozenset(filter_field("name", names, NAME_LENGTH_MAX, NAMES_MAX)) or None


def since_field(request: Any, asked: Asked) -> int:
    """The moment in `since`, in microseconds. Raises NimbusError with FIELD_INVALID."""
    return micros(time_field("since", request.since) if request.HasField("since") else asked.now - SINCE)


def limit_field(limit: int) -> int:
    """How many to return. Raises NimbusError with FIELD_INVALID."""
    return int_field("limit", limit, 1, LIMIT_MAX) if limit else LIMIT


def search_field(search: str) -> str:
    """The text to look for, or none. Raises NimbusError with FIELD_TOO_LONG or FIELD_INVALID."""
    return text_field("search", search, SEARCH_LENGTH_MAX, may_be_blank=True) if search else ""


def contains(column: str, search: str) -> str:
    """SQL: whether a column contains the text, whatever the case of its letters."""
    return f"contains(lower({column}), lower({literal(search)}))" if search else "TRUE"


def at(t: int) -> Timestamp:
    """A moment in microseconds as a message."""
    return timestamp(moment(t))

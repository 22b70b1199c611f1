"""Checks of single request fields, shared by the services."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest.event import EventRefusedError
from nimbus_server.ingest.props import encode_props, parse_props
from nimbus_server.times import read_zone

# What is wanted of props or context, each number, text, list and object counted: all of it is looked for in all of
# every event.
PROPS_WANTED_MAX = 20
PROPS_WANTED_BYTES_MAX = 10_240


def uuid_field(name: str, value: str) -> UUID:
    """The UUID in a required field. Raises NimbusError with FIELD_REQUIRED or FIELD_INVALID."""
    if not value:
        raise field_error(Reason.FIELD_REQUIRED, name, f"{name} is required.")
    try:
        return UUID(value)
    except ValueError:
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must be a UUID.") from None


def text_field(name: str, value: str, length_max: int, *, may_be_blank: bool = False) -> str:
    """The text in a required field, 1 to `length_max` characters, no NUL, and not white space alone unless it may.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID.
    """
    if not (value if may_be_blank else value.strip()):
        raise field_error(Reason.FIELD_REQUIRED, name, f"{name} must not be empty.")
    if len(value) > length_max:
        raise field_error(Reason.FIELD_TOO_LONG, name, f"{name} must have at most {length_max} characters.")
    if "\0" in value:
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must not contain NUL.")
    return value


def filter_field(name: str, values: Sequence[str], length_max: int, count_max: int = 100) -> list[str]:
    """The texts of an optional filter. Raises what text_field does, and FIELD_TOO_LONG for too many of them."""
    if len(values) > count_max:
        raise field_error(Reason.FIELD_TOO_LONG, name, f"{name} may be given at most {count_max} times.")
    return [text_field(name, value, length_max, may_be_blank=True) for value in values]


def props_field(name: str, text: str) -> bytes:
    """The JSON object that `props` or `context` of events must contain, with its keys sorted; empty for no filter.

    Raises NimbusError with FIELD_TOO_LONG or FIELD_INVALID.
    """
    if not text:
        return b""
    encoded = text.encode()
    if len(encoded) > PROPS_WANTED_BYTES_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, name, f"{name} must have at most {PROPS_WANTED_BYTES_MAX} bytes.")
    try:
        props = parse_props(encoded)
        encode_props(props)
    except EventRefusedError:
        raise field_error(
            Reason.FIELD_INVALID, name, f"{name} must be a JSON object such as an event could have."
        ) from None
    if _count(props) > PROPS_WANTED_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, name, f"{name} may ask for at most {PROPS_WANTED_MAX} values.")
    return orjson.dumps(props, option=orjson.OPT_SORT_KEYS) if props else b""


def _count(value: object) -> int:
    """The values within a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _count(one) for one in inner)


def int_field(name: str, value: int, lowest: int, highest: int) -> int:
    """A number within its range. Raises NimbusError with FIELD_INVALID."""
    if not lowest <= value <= highest:
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must be from {lowest} to {highest}.")
    return value


def timestamp(at: datetime) -> Timestamp:
    """A moment as a message."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def struct(value: dict[str, Any]) -> Struct:
    """A JSON object as a message; numbers become doubles."""
    message = Struct()
    message.update(value)
    return message


def time_field(name: str, value: Timestamp) -> datetime:
    """A moment in UTC. Raises NimbusError with FIELD_INVALID outside the years 1 to 9999."""
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must be a time from the year 1 to 9999.") from None


def zone_field(name: str, value: str) -> ZoneInfo:
    """A time zone. Raises NimbusError with FIELD_INVALID."""
    try:
        return read_zone(value)
    except ValueError:
        raise field_error(
            Reason.FIELD_INVALID, name, f"{name} must be a name of the IANA time zone database, such as Europe/Berlin."
        ) from None

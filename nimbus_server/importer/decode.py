"""Records of a file as events for the log."""

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from nimbus_server.clock import SECOND
from nimbus_server.errors import Reason
from nimbus_server.importer.record import Record
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Origin, decode, valid_event
from nimbus_server.ingest.decode_json import EVENT_FIELDS, parse_ts
from nimbus_server.ingest.event import EventRefusedError, NewEvent
from nimbus_server.ingest.props import encode_props

FIELDS = EVENT_FIELDS | {"id"}
ID_LENGTH_MAX = 200
# Numbers from here on are unix milliseconds: as seconds they would lie after the year 5000.
MILLISECONDS_FROM = 10**11

_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")


class Columns(NamedTuple):
    """Events, column by column as in NewEvent: from one process to another they take a quarter of the time so."""

    places: Sequence[int] = ()
    ids: Sequence[bytes] = ()
    tss: Sequence[int] = ()
    floating: Sequence[bool] = ()
    names: Sequence[str] = ()
    texts: Sequence[bytes] = ()

    def events(self) -> list[NewEvent]:
        """The events."""
        return list(map(NewEvent._make, zip(*self, strict=True)))


class Rejected(NamedTuple):
    """A record that can't be stored, and why; `line` and `raw` as in Record."""

    line: int
    raw: bytes
    field: str
    reason: Reason
    message: str


def decode_records(
    records: Sequence[Record], file: str, received_at: int, ts_min: int
) -> tuple[Columns, list[Rejected]]:
    """The events in up to 65,536 records, each with the identity that it gets however often it is read.

    `file` stands for the file in the identities of those that bring none. `received_at`, and `ts_min` before which
    nothing is kept, are in microseconds since 1970.
    """
    origin = Origin(received_at, received_at, bytes(identity.PREFIX_BYTES), repeatable=True, ts_min=ts_min)
    batch = decode(records, origin, partial(_read, file))
    rejected = [
        Rejected(records[r.index].line, records[r.index].raw, r.field, r.reason, r.message) for r in batch.refusals
    ]
    return Columns(*zip(*batch.events, strict=True)), rejected


def _read(file: str, place: int, record: Record, origin: Origin) -> NewEvent:
    event = record.content
    if isinstance(event, EventRefusedError):
        raise event
    if not event.keys() <= FIELDS:
        unknown = min(event.keys() - FIELDS)
        raise EventRefusedError(
            unknown[:100], Reason.FIELD_UNKNOWN, "An event has no such field: put what you know about it into props."
        )
    get = event.get
    name, user_id, key, given = get("name"), get("user_id"), get("idempotency_key"), get("id")
    for value in (name, user_id, key):
        if value is not None and type(value) is not str:
            field = next(f for f in ("name", "user_id", "idempotency_key") if get(f) is value)
            raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must be a string.")
    read = valid_event(place, name or "", _ts(get("ts")), user_id, key, _props(event), origin)
    if key is not None:
        return read
    by_source = identity.of_file_line(file, record.line, record.raw) if given is None else _of_source(given)
    return NewEvent(place, by_source, read.ts, read.floating, read.name, read.texts)


def _props(event: dict[str, Any]) -> bytes:
    props, properties = event.get("props"), event.get("properties")
    if properties is not None:
        if props is not None:
            raise EventRefusedError("properties", Reason.FIELD_INVALID, "Give props or properties, not both.")
        props = properties
    if props is None:
        return b"{}"
    if type(props) is not dict:
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must be a JSON object.")
    return encode_props(props)


def _ts(ts: Any) -> int:
    """RFC 3339, or a number in JSON or in a cell, in microseconds since 1970. Raises EventRefusedError."""
    if type(ts) is str:
        # RFC 3339 has a hyphen after the year.
        if ts[4:5] == "-":
            return parse_ts("ts", ts)
        if _NUMBER.fullmatch(ts):
            ts = float(ts) if "." in ts else int(ts)
    if type(ts) is int or type(ts) is float:
        at = ts * (SECOND // 1000 if abs(ts) >= MILLISECONDS_FROM else SECOND)
        if math.isfinite(at):
            return round(at)
    if ts is None:
        raise EventRefusedError("ts", Reason.FIELD_REQUIRED, "ts is required: history needs a time.")
    raise EventRefusedError(
        "ts",
        Reason.FIELD_INVALID,
        "ts must be a time such as 2025-11-01T12:00:00Z (RFC 3339), or unix seconds or milliseconds.",
    )


def _of_source(given: Any) -> bytes:
    if type(given) is int:
        given = str(given)
    if type(given) is not str or not given:
        raise EventRefusedError("id", Reason.FIELD_INVALID, "id must be a string that is not empty, or a whole number.")
    if len(given) > ID_LENGTH_MAX:
        raise EventRefusedError("id", Reason.FIELD_TOO_LONG, f"id must have at most {ID_LENGTH_MAX} characters.")
    try:
        return identity.of_source(given)
    except UnicodeEncodeError:
        raise EventRefusedError("id", Reason.FIELD_INVALID, "id must not contain half a character.") from None

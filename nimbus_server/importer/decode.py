"""Records of a file as events for the log."""

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson

from nimbus_server.clock import SECOND
from nimbus_server.errors import Reason
from nimbus_server.importer.lines import LINE_BYTES_MAX
from nimbus_server.importer.record import Record, UnreadableError
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Origin, decode, new_event, valid_events
from nimbus_server.ingest.decode_json import EVENT_FIELDS, check_fields, contexts_of, parse_ts, props_of, texts_of
from nimbus_server.ingest.event import EventRefusedError, NewEvent, Refusal
from nimbus_server.ingest.props import encode_all_props
from nimbus_server.times import read_plain_utc

FIELDS = EVENT_FIELDS | {"id"}
ID_LENGTH_MAX = 200
# Numbers from here on are unix milliseconds: as seconds they would lie after the year 5000.
MILLISECONDS_FROM = 10**11

_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")


class Rejected(NamedTuple):
    """A record that can't be stored, and why; `line` and `raw` as in Record, the others as in UnreadableError."""

    line: int
    raw: bytes
    field: str
    reason: Reason
    message: str
    lines: int
    whole: bool
    to_end: bool


def decode_records(
    records: Sequence[Record], file: str, received_at: int, ts_min: int, first: int = 0
) -> tuple[list[NewEvent], list[Rejected]]:
    """The events in records of which the first has the place `first`, each with the identity that it always gets.

    `file` stands for the file in the identities of those that bring none. `received_at`, and `ts_min` before which
    nothing is kept, are in microseconds since 1970. Places go up to 65,535.
    """
    origin = Origin(received_at, received_at, bytes(identity.PREFIX_BYTES), repeatable=True, ts_min=ts_min)
    batch = decode(records, origin, partial(_read, file), first)
    return batch.events, [_rejected(records[refusal.index - first], refusal) for refusal in batch.refusals]


def _rejected(record: Record, refusal: Refusal) -> Rejected:
    line, raw, content = record
    if isinstance(content, UnreadableError):
        extent = content.lines, content.whole, content.to_end
    else:
        extent = raw.count(b"\n") + 1, len(raw) <= LINE_BYTES_MAX, False
    return Rejected(line, raw, refusal.field, refusal.reason, refusal.message, *extent)


def _read(file: str, first: int, records: Sequence[Record], origin: Origin) -> list[NewEvent]:
    events = list(map(_content, records))
    fields = check_fields(events, FIELDS)
    names, user_ids, keys = (texts_of(events, field) for field in ("name", "user_id", "idempotency_key"))
    given = [event.get("ts") for event in events]
    tss = read_plain_utc(given) or list(map(_ts, given))
    props = encode_all_props(list(map(props_of, events)))
    read = valid_events(
        first,
        [name or "" for name in names],
        tss,
        user_ids,
        keys,
        props,
        origin,
        anonymous_ids=texts_of(events, "anonymous_id") if "anonymous_id" in fields else None,
        contexts=contexts_of(events) if "context" in fields else None,
    )
    if None not in keys:
        return read
    return [
        event if key is not None else new_event((event.place, _identity(file, record), *event[2:]))
        for event, key, record in zip(read, keys, records, strict=True)
    ]


def _content(record: Record) -> dict[str, Any]:
    if isinstance(record.content, EventRefusedError):
        raise record.content
    return record.content


def _identity(file: str, record: Record) -> bytes:
    given = _content(record).get("id")
    return identity.of_file_line(file, record.line, record.raw) if given is None else _of_source(given)


def _ts(ts: Any) -> int:
    """RFC 3339, or a number in JSON or in a cell, in microseconds since 1970. Raises EventRefusedError."""
    if type(ts) is str:
        # A date has a hyphen after the year.
        if ts[4:5] == "-":
            return parse_ts("ts", ts)
        if _NUMBER.fullmatch(ts):
            ts = float(ts) if "." in ts else int(ts)
    if type(ts) is orjson.Fragment:
        ts = float(orjson.dumps(ts))
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

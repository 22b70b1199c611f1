"""What protobuf an event may be, at each limit and just past it."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.event_service_pb2 import Event
from nimbus_server.clock import micros, moment
from nimbus_server.errors import Reason
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import NEITHER, NULL, jsonb, text
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.decode_proto import decode_proto

NOW = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)
ORIGIN = Origin(micros(NOW), default_ts=micros(NOW), id_prefix=identity.signed("ab" * 32), repeatable=True)
# What comes before the props of an event of decode().
BEFORE_PROPS = text(b"signup") + NULL + NULL + NEITHER
YEAR_2000 = 946_684_800
TOMORROW = int(NOW.timestamp()) + 86_400


def decode(**fields: Any) -> Batch:
    return decode_proto([Event(**{"name": "signup"} | fields)], ORIGIN)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def nested_json(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"[]" + b"}" * (levels - 1)


def struct(**fields: Any) -> Struct:
    message = Struct()
    message.update(fields)
    return message


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 200, "user_id": "u" * 200, "idempotency_key": "k" * 200},
        {"props": struct()},
        {"props": struct(**nested(20))},
        {"anonymous_id": "a" * 200, "context": struct()},
        {"context": struct(**nested(20))},
        {"context_json": b"{}"},
        {"context_json": b' { "spaces do not count" : 1 } ' + b" " * 40_000},
        {"context_json": b'{"p":"' + b"x" * 32_760 + b'"}', "props_json": b'{"p":"' + b"x" * 32_760 + b'"}'},
        {"context_json": nested_json(20)},
        {"props_json": b"{}"},
        {"props_json": b' { "spaces do not count" : 1 } ' + b" " * 40_000},
        {"props_json": b'{"p":"' + b"x" * 32_760 + b'"}'},
        {"props_json": nested_json(20)},
        {"props_json": nested_json(20).replace(b"[]", b'["leaf"]')},
        {"ts": Timestamp(seconds=YEAR_2000)},
        {"ts": Timestamp(seconds=TOMORROW)},
    ],
)
def test_an_event_at_its_limits_is_valid(fields: dict[str, Any]) -> None:
    batch = decode(**fields)
    assert not batch.refusals
    assert len(batch.events) == 1


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"name": ""}, "name", Reason.FIELD_REQUIRED),
        ({"name": "x" * 201}, "name", Reason.FIELD_TOO_LONG),
        ({"name": "a\0b"}, "name", Reason.FIELD_INVALID),
        ({"user_id": ""}, "user_id", Reason.FIELD_INVALID),
        ({"user_id": "u" * 201}, "user_id", Reason.FIELD_TOO_LONG),
        ({"idempotency_key": ""}, "idempotency_key", Reason.FIELD_INVALID),
        ({"idempotency_key": "k" * 201}, "idempotency_key", Reason.FIELD_TOO_LONG),
        ({"anonymous_id": ""}, "anonymous_id", Reason.FIELD_INVALID),
        ({"anonymous_id": "a" * 201}, "anonymous_id", Reason.FIELD_TOO_LONG),
        ({"context": struct(**nested(21))}, "context", Reason.PROPS_TOO_DEEP),
        ({"context": struct(a="x" * 32_761)}, "context", Reason.FIELD_TOO_LONG),
        ({"context": struct(a=["x" * 300_000])}, "context", Reason.FIELD_TOO_LONG),
        ({"context": struct(a="\0")}, "context", Reason.FIELD_INVALID),
        ({"context": struct(a=[math.nan])}, "context", Reason.FIELD_INVALID),
        ({"context_json": b""}, "context_json", Reason.FIELD_INVALID),
        ({"context_json": b"[]"}, "context_json", Reason.FIELD_INVALID),
        ({"context_json": b'{"a": 1e999}'}, "context", Reason.FIELD_INVALID),
        ({"context_json": b'{"a": 1, "a": 1}'}, "context", Reason.FIELD_INVALID),
        ({"context_json": b'{"a": "\\ud800"}'}, "context", Reason.FIELD_INVALID),
        ({"context_json": b'{"a": "\\u0000"}'}, "context", Reason.FIELD_INVALID),
        ({"context_json": nested_json(21)}, "context", Reason.PROPS_TOO_DEEP),
        ({"context_json": b'{"p":"' + b"x" * 32_761 + b'"}'}, "context", Reason.FIELD_TOO_LONG),
        ({"props": struct(**nested(21))}, "props", Reason.PROPS_TOO_DEEP),
        ({"props": struct(a="x" * 32_761)}, "props", Reason.FIELD_TOO_LONG),
        ({"props": struct(a="\0")}, "props", Reason.FIELD_INVALID),
        ({"props": struct(a=math.inf)}, "props", Reason.FIELD_INVALID),
        ({"props": struct(a=[math.nan])}, "props", Reason.FIELD_INVALID),
        ({"props_json": b""}, "props_json", Reason.FIELD_INVALID),
        ({"props_json": b"[]"}, "props_json", Reason.FIELD_INVALID),
        ({"props_json": b'{"a": 1e999}'}, "props", Reason.FIELD_INVALID),
        ({"props_json": b'{"a": "\xff"}'}, "props", Reason.FIELD_INVALID),
        ({"props_json": b'{"a": "\\ud800"}'}, "props", Reason.FIELD_INVALID),
        ({"props_json": b'{"a":' * 5_000}, "props_json", Reason.FIELD_INVALID),
        ({"props_json": b'{"a": "\\u0000"}'}, "props", Reason.FIELD_INVALID),
        ({"props_json": nested_json(21)}, "props", Reason.PROPS_TOO_DEEP),
        ({"props_json": b'{"p":"' + b"x" * 32_761 + b'"}'}, "props", Reason.FIELD_TOO_LONG),
        ({"ts": Timestamp(seconds=YEAR_2000 - 1, nanos=999_999_999)}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": Timestamp(seconds=TOMORROW, nanos=1000)}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": Timestamp()}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": Timestamp(seconds=YEAR_2000, nanos=-1)}, "ts", Reason.FIELD_INVALID),
        ({"ts": Timestamp(seconds=YEAR_2000, nanos=1_000_000_000)}, "ts", Reason.FIELD_INVALID),
        ({"ts": Timestamp(seconds=2**62)}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": Timestamp(seconds=-(2**62))}, "ts", Reason.TS_OUT_OF_RANGE),
    ],
)
def test_an_event_past_a_limit_is_refused_with_its_field_and_reason(
    fields: dict[str, Any], field: str, reason: Reason
) -> None:
    batch = decode(**fields)
    assert not batch.events
    assert [(r.index, r.field, r.reason) for r in batch.refusals] == [(0, field, reason)]


def test_whole_numbers_of_a_struct_stay_whole() -> None:
    (event,) = decode(props=struct(a=7, b=-0.5, c=2.0**53, d=True, e=None)).events
    props = event.texts.removeprefix(BEFORE_PROPS)[len(jsonb(b"")) :]
    assert sorted(props[1:-1].split(b",")) == [
        b'"a":7',
        b'"b":-0.5',
        b'"c":9007199254740992',
        b'"d":true',
        b'"e":null',
    ]


def test_integers_of_props_json_keep_64_bits() -> None:
    (event,) = decode(props_json=b'{"id": 18446744073709551615}').events
    assert event.texts == BEFORE_PROPS + jsonb(b'{"id": 18446744073709551615}')


def test_a_ts_keeps_its_microseconds() -> None:
    (event,) = decode(ts=Timestamp(seconds=YEAR_2000, nanos=123_456_999)).events
    assert moment(event.ts) == datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=123_456)

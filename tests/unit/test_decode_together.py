"""Reading many events at once gives what reading each by itself gives."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nimbus.v1.event_service_pb2 import Event
from nimbus_server.clock import micros
from nimbus_server.importer.decode import decode_records
from nimbus_server.importer.record import Record, unparsable
from nimbus_server.ingest import decode as decode_module
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.ingest.decode_proto import decode_proto
from nimbus_server.ingest.event import TS_MIN, EventRefusedError
from nimbus_server.ingest.props import check_all_props_json, check_props_json, encode_all_props, encode_props

NOW = micros(datetime(2025, 11, 1, 12, 0, tzinfo=UTC))
ORIGIN = Origin(NOW, NOW - 5, identity.signed("ab" * 32), repeatable=True)
ORIGINS = st.builds(replace, st.just(ORIGIN), skew=st.none() | st.integers(-9, 9), repeatable=st.booleans())

PLAIN = st.sampled_from(["2025-11-01T12:00:00Z", "2025-11-01T12:00:00.123456Z", "2020-02-29T23:59:59.5Z"])
TIMES = st.sampled_from(
    [
        "2025-11-01t12:00:00z",
        "2025-11-01 12:00:00",
        "2025-11-01T12:00:00+02:00",
        "2025-11-01T12:00Z",
        "2025-W44-6T12:00:00Z",
        "20251101T120000.000Z",
        "2025-11-31T12:00:00Z",
        "1999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "2025-11-01T12:00:00 Z",
        "",
    ]
) | st.text("0123456789-:.TZ", max_size=30)
TEXTS = st.text(max_size=3) | st.sampled_from(["x" * 200, "x" * 201, "ü" * 200, "a\0", "\udc80"])
FLAT = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
VALUES = FLAT | st.lists(FLAT, max_size=2) | st.dictionaries(TEXTS, FLAT, max_size=2)
DEEP = st.integers(0, 22).map(lambda levels: orjson.loads(b'{"a":' * levels + b"1" + b"}" * levels))
LONG = st.integers(32_755, 32_765).map(lambda size: {"a": "x" * size})
PROPS = st.dictionaries(TEXTS, FLAT, max_size=3) | st.dictionaries(TEXTS, VALUES | DEEP, max_size=3) | LONG
ODD = st.sampled_from([5, None, [], "x", {"seq": 1}, {"name": 5}, {"name": "n", "ts": PLAIN, "user_id": []}])
GOOD = st.fixed_dictionaries({"name": st.sampled_from("ab"), "ts": PLAIN, "idempotency_key": st.sampled_from("cd")})
FIELDS = {"ts": PLAIN | TIMES | st.none(), "user_id": TEXTS | st.none(), "idempotency_key": TEXTS, "props": PROPS}
NEW_FIELDS = {"anonymous_id": TEXTS | st.none(), "context": PROPS | st.none() | TEXTS}
EVENTS = st.fixed_dictionaries(
    {"name": TEXTS}, optional={**FIELDS, **NEW_FIELDS, "properties": PROPS, "id": TEXTS | st.integers()}
)
ITEMS = st.lists(GOOD | EVENTS | ODD, min_size=1, max_size=6)


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    try:
        return function(value)
    except EventRefusedError as error:
        return error.field, error.reason, error.message


@pytest.fixture(autouse=True)
def few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "TOGETHER", 4)


def one_by_one(decode: Callable[[Sequence[Any], int], Batch], events: Sequence[Any]) -> Batch:
    batches = [decode([event], place) for place, event in enumerate(events)]
    return Batch([e for batch in batches for e in batch.events], [r for batch in batches for r in batch.refusals])


@given(ITEMS, ORIGINS)
@settings(deadline=None)
def test_json(items: list[Any], origin: Origin) -> None:
    assert decode_json(items, origin) == one_by_one(lambda some, first: decode_json(some, origin, first), items)


OBJECTS = st.sampled_from([b"", b"{", b"[]", b'{"a": {}}', b'{"a":1e999}', b'{"a":"\\u0000"}', b"{}"])
MESSAGES = st.builds(
    Event,
    name=st.text(max_size=3) | st.just("x" * 201),
    user_id=st.none() | st.text(max_size=3),
    idempotency_key=st.none() | st.text(max_size=3) | st.just("a\0"),
    ts=st.none() | st.builds(dict, seconds=st.integers(0, 2**32), nanos=st.integers(-1, 10**9)),
    props_json=st.none() | OBJECTS,
    anonymous_id=st.none() | st.text(max_size=3) | st.just("a\0"),
    context_json=st.none() | OBJECTS,
)


@given(st.lists(MESSAGES | st.just(Event(name="n", props_json=b'{"a": 1}')), min_size=1, max_size=6), ORIGINS)
@settings(deadline=None)
def test_proto(messages: list[Event], origin: Origin) -> None:
    together = decode_proto(messages, origin)
    assert together == one_by_one(lambda some, first: decode_proto(some, origin, first), messages)


@given(ITEMS)
@settings(deadline=None)
def test_records(items: list[Any]) -> None:
    records = [
        Record(line, b"%d" % line, item if isinstance(item, dict) else unparsable("No."))
        for line, item in enumerate(items, start=1)
    ]
    each = [decode_records([record], "f", NOW, TS_MIN, place) for place, record in enumerate(records)]
    expected = [event for events, _ in each for event in events], [r for _, rejected in each for r in rejected]
    assert decode_records(records, "f", NOW, TS_MIN) == expected


@given(st.lists(st.sampled_from("abc") | TEXTS, min_size=1, max_size=3))
@example(["a", ""])
def test_texts(values: list[str]) -> None:
    def each(values: list[str]) -> list[bytes]:
        return [decode_module._text("user_id", value, 200) for value in values]

    assert outcome(lambda all_: decode_module._texts("user_id", all_, 200), values) == outcome(each, values)


@given(st.lists(PROPS | st.none(), min_size=1, max_size=3))
@example([{"a": 1.5}, {"a": math.inf}])
@example([{"a": math.nan}])
@settings(deadline=None)
def test_props(props: list[dict[str, Any] | None]) -> None:
    assert outcome(encode_all_props, props) == outcome(lambda all_: [encode_props(some or {}) for some in all_], props)


# Python's own writes NaN, half characters and integers of any size.
ENCODED = PROPS.map(lambda props: json.dumps(props).encode())


@given(st.lists(ENCODED | st.sampled_from([b"", b"[]", b"{", b'{"a": "\\u0000"}', b' {"a": 1.10 }']), min_size=1))
@settings(deadline=None)
def test_props_that_come_as_json(encoded: list[bytes]) -> None:
    together = outcome(check_all_props_json, encoded)
    assert together == outcome(lambda all_: list(map(check_props_json, all_)), encoded)

"""What JSON an event may be, at each limit and just past it."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nimbus_server.clock import micros, moment
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import jsonb
from nimbus_server.ingest.decode import Batch, Origin, check_count
from nimbus_server.ingest.decode_json import JsonRequest, decode_json, parse_json

NOW = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)
SIGNED_AT = NOW - timedelta(seconds=7, microseconds=250)
ORIGIN = Origin(micros(NOW), default_ts=micros(SIGNED_AT), id_prefix=identity.signed("ab" * 32), repeatable=True)


def decode(**fields: Any) -> Batch:
    return decode_json([{"name": "signup"} | fields], ORIGIN)


def nested(levels: int, leaf: Any = 1) -> Any:
    for level in range(levels):
        leaf = [leaf] if level % 2 and level < levels - 1 else {"in": leaf}
    return leaf


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x"},
        {"name": "x" * 200},
        {"name": "\U0001f600" * 200},
        {"user_id": "u" * 200, "idempotency_key": "k" * 200},
        {"user_id": None, "idempotency_key": None, "ts": None, "props": None, "properties": None},
        {"props": {}},
        {"props": nested(20)},
        {"props": nested(20, "deep enough")},
        {"props": {"p": "x" * (32_768 - len('{"p":""}'))}},
        {"props": {"p": "\u00e9" * ((32_768 - len('{"p":""}')) // 2)}},
        {"anonymous_id": "\U0001f600" * 200},
        {"anonymous_id": None, "context": None},
        {"context": {}},
        {"context": nested(20)},
        {"context": {"p": "x" * (32_768 - len('{"p":""}'))}, "props": {"p": "x" * (32_768 - len('{"p":""}'))}},
        {"props": {"int": 2**64 - 1, "float": 1.7976931348623157e308, "none": None, "true": True, "": ""}},
        {"ts": "2000-01-01T00:00:00Z"},
        {"ts": "2025-11-02T12:00:00Z"},
        {"ts": "2025-11-01 11:59:60"},
        {"ts": "2025-11-01t12:00z"},
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
        ({"name": None}, "name", Reason.FIELD_REQUIRED),
        ({"name": 7}, "name", Reason.FIELD_INVALID),
        ({"name": "x" * 201}, "name", Reason.FIELD_TOO_LONG),
        ({"name": "a\0b"}, "name", Reason.FIELD_INVALID),
        ({"user_id": ""}, "user_id", Reason.FIELD_INVALID),
        ({"user_id": 7}, "user_id", Reason.FIELD_INVALID),
        ({"user_id": "u" * 201}, "user_id", Reason.FIELD_TOO_LONG),
        ({"user_id": "\0"}, "user_id", Reason.FIELD_INVALID),
        ({"idempotency_key": ""}, "idempotency_key", Reason.FIELD_INVALID),
        ({"idempotency_key": ["k"]}, "idempotency_key", Reason.FIELD_INVALID),
        ({"idempotency_key": "k" * 201}, "idempotency_key", Reason.FIELD_TOO_LONG),
        ({"idempotency_key": "k\0"}, "idempotency_key", Reason.FIELD_INVALID),
        ({"props": []}, "props", Reason.FIELD_INVALID),
        ({"props": "{}"}, "props", Reason.FIELD_INVALID),
        ({"properties": 1}, "props", Reason.FIELD_INVALID),
        ({"props": {}, "properties": {}}, "properties", Reason.FIELD_INVALID),
        ({"props": nested(21)}, "props", Reason.PROPS_TOO_DEEP),
        ({"props": {"a": [nested(20)]}}, "props", Reason.PROPS_TOO_DEEP),
        ({"props": {"p": "x" * (32_769 - len('{"p":""}'))}}, "props", Reason.FIELD_TOO_LONG),
        ({"props": {"p": '"' * 16_400}}, "props", Reason.FIELD_TOO_LONG),
        ({"anonymous_id": ""}, "anonymous_id", Reason.FIELD_INVALID),
        ({"anonymous_id": 7}, "anonymous_id", Reason.FIELD_INVALID),
        ({"anonymous_id": "a" * 201}, "anonymous_id", Reason.FIELD_TOO_LONG),
        ({"anonymous_id": "\0"}, "anonymous_id", Reason.FIELD_INVALID),
        ({"context": []}, "context", Reason.FIELD_INVALID),
        ({"context": "{}"}, "context", Reason.FIELD_INVALID),
        ({"context": nested(21)}, "context", Reason.PROPS_TOO_DEEP),
        ({"context": {"p": "x" * (32_769 - len('{"p":""}'))}}, "context", Reason.FIELD_TOO_LONG),
        ({"context": {"list": [{"a\0b": 1}]}}, "context", Reason.FIELD_INVALID),
        ({"context": {"p": math.inf}}, "context", Reason.FIELD_INVALID),
        ({"props": {"p": "a\0b"}}, "props", Reason.FIELD_INVALID),
        ({"props": {"list": [{"a\0b": 1}]}}, "props", Reason.FIELD_INVALID),
        ({"props": {"p": math.inf}}, "props", Reason.FIELD_INVALID),
        ({"props": {"p": [math.nan]}}, "props", Reason.FIELD_INVALID),
        ({"propz": {}}, "propz", Reason.FIELD_UNKNOWN),
        ({"id": "1"}, "id", Reason.FIELD_UNKNOWN),
        ({"ts": 1_763_900_000}, "ts", Reason.FIELD_INVALID),
        ({"ts": "1999-12-31T23:59:59.999999Z"}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": "2025-11-02T12:00:00.000001Z"}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": "2000-01-01T00:00:00+00:01"}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": "9999-12-31T23:59:59-01:00"}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": "0001-01-01T00:00:00+01:00"}, "ts", Reason.TS_OUT_OF_RANGE),
        ({"ts": ""}, "ts", Reason.FIELD_INVALID),
        ({"ts": "2025-11-01"}, "ts", Reason.FIELD_INVALID),
        ({"ts": "2025-11-01T12"}, "ts", Reason.FIELD_INVALID),
        ({"ts": "2025-13-01T12:00:00Z"}, "ts", Reason.FIELD_INVALID),
        ({"ts": "2025-11-01T12:00:00+24:00"}, "ts", Reason.FIELD_INVALID),
        ({"ts": "yesterday, about noon"}, "ts", Reason.FIELD_INVALID),
    ],
)
def test_an_event_past_a_limit_is_refused_with_its_field_and_reason(
    fields: dict[str, Any], field: str, reason: Reason
) -> None:
    batch = decode(**fields)
    assert not batch.events
    assert [(r.index, r.field, r.reason) for r in batch.refusals] == [(0, field, reason)]


@pytest.mark.parametrize("event", [None, 1, "signup", [], True])
def test_what_is_no_object_is_no_event(event: Any) -> None:
    assert [(r.field, r.reason) for r in decode_json([event], ORIGIN).refusals] == [("events", Reason.FIELD_INVALID)]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2025-11-01T11:00:00Z", "2025-11-01T11:00:00+00:00"),
        ("2025-11-01t11:00:00z", "2025-11-01T11:00:00+00:00"),
        ("2025-11-01 11:00:00", "2025-11-01T11:00:00+00:00"),
        ("2025-11-01T11:00:00.5+05:30", "2025-11-01T05:30:00.500000+00:00"),
        ("2025-10-31T23:30:00-01:00", "2025-11-01T00:30:00+00:00"),
        ("2025-11-01T11:00:00.123456789Z", "2025-11-01T11:00:00.123456+00:00"),
    ],
)
def test_a_timestamp_is_read_in_utc_to_the_microsecond(text: str, utc: str) -> None:
    (event,) = decode(ts=text).events
    assert moment(event.ts).isoformat() == utc
    assert not event.floating


def test_an_event_without_ts_has_that_of_the_signature() -> None:
    (event,) = decode().events
    assert moment(event.ts) == SIGNED_AT
    assert not event.floating


def test_a_key_without_ts_keeps_the_ts_that_it_came_with_first() -> None:
    (event,) = decode(idempotency_key="k").events
    assert (moment(event.ts), event.floating) == (SIGNED_AT, True)
    assert not decode(idempotency_key="k", ts="2025-11-01T11:00:00Z").events[0].floating


def test_properties_stands_for_props() -> None:
    assert decode(properties={"plan": "pro"}).events == decode(props={"plan": "pro"}).events


def test_no_props_and_empty_props_are_the_same() -> None:
    assert decode(props=None).events[0].texts == decode(props={}).events[0].texts
    assert decode(props=None).events[0].texts.endswith(jsonb(b"{}"))


def test_no_context_and_an_empty_one_are_the_same() -> None:
    without = decode().events
    assert without == decode(context=None, anonymous_id=None).events == decode(context={}).events


def test_an_anonymous_id_tells_events_of_nobody_apart_and_no_others() -> None:
    def identities(**fields: str) -> set[bytes]:
        return {
            decode(idempotency_key="k", ts="2025-11-01T11:00:00Z", **fields, **others).events[0].id
            for others in ({}, {"anonymous_id": "a"}, {"anonymous_id": "b"})
        }

    assert len(identities()) == 3
    assert len(identities(user_id="u")) == 1
    # Nor is an anonymous id taken for a user, or for a part of the key.
    (anonymous,) = decode(idempotency_key="k", anonymous_id="u", ts="2025-11-01T11:00:00Z").events
    assert anonymous.id not in identities(user_id="u")


def test_an_event_is_the_same_whoever_stands_beside_it() -> None:
    plain, full = {"name": "a", "idempotency_key": "k"}, {"name": "b", "anonymous_id": "x", "context": {"n": 1}}
    alone = decode_json([plain], ORIGIN).events
    assert decode_json([plain, full], ORIGIN).events[:1] == alone


@pytest.mark.parametrize(("count", "reason"), [(0, Reason.BATCH_EMPTY), (1001, Reason.BATCH_TOO_LARGE)])
def test_a_batch_has_1_to_1000_events(count: int, reason: Reason) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason):
        check_count(count)
    check_count(1)
    check_count(1000)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.REQUEST_UNPARSABLE),
        (b"[]", Reason.REQUEST_UNPARSABLE),
        (b'{"events": [', Reason.REQUEST_UNPARSABLE),
        (b"[" * 100_000, Reason.REQUEST_UNPARSABLE),
        (b'{"events": {}}', Reason.FIELD_INVALID),
        (b'{"project_id": 1}', Reason.FIELD_INVALID),
        (b'{"event": []}', Reason.FIELD_UNKNOWN),
        (b'{"return_receipts": "yes"}', Reason.FIELD_INVALID),
        (b'{"return_receipts": 1}', Reason.FIELD_INVALID),
        (b'{"sent_at": 1762000000}', Reason.FIELD_INVALID),
        (b'{"sent_at": "just now"}', Reason.FIELD_INVALID),
        (b'{"sent_at": ""}', Reason.FIELD_INVALID),
    ],
)
def test_a_body_that_is_no_request_is_refused_as_a_whole(body: bytes, reason: Reason) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason):
        parse_json(body)


def test_a_body_gives_its_project_and_events() -> None:
    assert parse_json(b'{"project_id": "p", "events": [{"name": "x"}]}') == JsonRequest(
        "p", [{"name": "x"}], None, False
    )
    assert parse_json(b'{"project_id": null, "events": null, "sent_at": null, "return_receipts": null}') == JsonRequest(
        "", [], None, False
    )
    full = parse_json(b'{"events": [], "sent_at": "2025-11-01T12:00:00Z", "return_receipts": true}')
    assert full == JsonRequest("", [], micros(NOW), True)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (b'{"name": "\\ud83d"}', "name"),
        (b'{"name": "x", "user_id": "\\ud83d"}', "user_id"),
        (b'{"name": "x", "props": {"p": "\\ud83d"}}', "props"),
        (b'{"name": "x", "props": {"\\ud83d": 1}}', "props"),
        (b'{"name": "x", "props": {"p": NaN}}', "props"),
        (b'{"name": "x", "anonymous_id": "\\ud83d"}', "anonymous_id"),
        (b'{"name": "x", "context": {"p": "\\ud83d"}}', "context"),
        (b'{"name": "x", "context": {"\\ud83d": 1}}', "context"),
        (b'{"name": "x", "context": {"p": NaN}}', "context"),
        (b'{"name": "x", "context": {"p": 1, "p": 1}}', "context"),
        (b'{"name": "x", "props": {"p": -Infinity}}', "props"),
        (b'{"name": "x", "props": {"p": 1e999}}', "props"),
    ],
)
def test_half_a_character_or_no_number_costs_its_own_event_alone(event: bytes, field: str) -> None:
    request = parse_json(b'{"events": [{"name": "good"}, ' + event + b', {"name": "too"}]}')
    batch = decode_json(request.events, ORIGIN)
    assert [event.name for event in batch.events] == ["good", "too"]
    assert [(r.index, r.field, r.reason) for r in batch.refusals] == [(1, field, Reason.FIELD_INVALID)]

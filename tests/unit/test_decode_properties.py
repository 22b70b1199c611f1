"""What holds for whatever events a client sends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus.v1.event_service_pb2 import Event, IngestEventsRequest
from nimbus_server.clock import micros
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.decode_json import decode_json, parse_json
from nimbus_server.ingest.decode_proto import decode_proto
from nimbus_server.ingest.event import NewEvent

NOW = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)
ORIGIN = Origin(micros(NOW), micros(NOW - timedelta(seconds=3)), identity.signed("ab" * 32), repeatable=True)
NOTHING = Event(name="x")

TEXTS = st.text(max_size=5) | st.sampled_from(["x" * 200, "x" * 201, "\0"])
# A Struct holds doubles: exact for whole numbers up to 2**53 and for what has a fraction.
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
DEEP = st.integers(0, 22).map(lambda levels: orjson.loads(b'{"a":' * levels + b"1" + b"}" * levels))
PROPS = st.dictionaries(st.text(max_size=3), VALUES | DEEP, max_size=4)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)) | st.sampled_from(  # noqa: DTZ001
    [NOW + timedelta(hours=24), NOW + timedelta(hours=24, microseconds=1), datetime(2000, 1, 1, tzinfo=UTC)]
)
EVENTS = st.fixed_dictionaries(
    {"name": TEXTS},
    optional={
        "ts": TIMES,
        "user_id": TEXTS,
        "idempotency_key": TEXTS,
        "props": PROPS,
        "anonymous_id": TEXTS,
        "context": PROPS,
    },
)

SKEWS = st.none() | st.integers(-(10**14), 10**14)
ORIGINS = st.builds(replace, st.just(ORIGIN), skew=SKEWS, repeatable=st.booleans())


def as_json(events: list[dict[str, Any]], origin: Origin = ORIGIN) -> Batch:
    body = orjson.dumps({"project_id": "p", "events": events})
    return decode_json(parse_json(body).events, origin)


def as_proto(events: list[dict[str, Any]], as_structs: set[str], origin: Origin) -> Batch:
    request = IngestEventsRequest()
    for fields in events:
        event = request.events.add(**{k: v for k, v in fields.items() if k not in {"props", "context", "ts"}})
        if "ts" in fields:
            event.ts.FromDatetime(fields["ts"])
        for name in {"props", "context"} & fields.keys():
            if name in as_structs:
                getattr(event, name).SetInParent()
                getattr(event, name).update(fields[name])
            else:
                setattr(event, f"{name}_json", orjson.dumps(fields[name]))
    return decode_proto(IngestEventsRequest.FromString(request.SerializeToString()).events, origin)


def split(event: NewEvent) -> tuple[bytes, list[Any]]:
    """The texts of an event before its context, and its context and props."""
    rest, columns, objects = event.texts, b"", []
    for _ in ("name", "user_id", "idempotency_key", "anonymous_id"):
        end = 4 + max(int.from_bytes(rest[:4], signed=True), 0)
        columns, rest = columns + rest[:end], rest[end:]
    for _ in ("context", "props"):
        end = 4 + int.from_bytes(rest[:4])
        version, value, rest = rest[4], rest[5:end], rest[end:]
        assert version == 1
        objects.append(orjson.loads(value))
    assert not rest
    return columns, objects


def comparable(batch: Batch) -> tuple[list[tuple[NewEvent, Any]], list[tuple[int, str, str]]]:
    """Objects as values: a Struct has no order of fields (nor of their faults) and no difference between 1 and 1.0."""
    return (
        [(event._replace(texts=columns), objects) for event in batch.events for columns, objects in [split(event)]],
        [(r.index, r.field, "" if r.field in {"props", "context"} else r.reason) for r in batch.refusals],
    )


@given(st.lists(EVENTS, min_size=1, max_size=4), st.sets(st.sampled_from(["props", "context"])), ORIGINS)
@settings(max_examples=150, deadline=None)
def test_json_and_proto_forms_of_an_event_are_the_same_event(
    events: list[dict[str, Any]], as_structs: set[str], origin: Origin
) -> None:
    assert comparable(as_json(events, origin)) == comparable(as_proto(events, as_structs, origin))


@given(st.lists(st.tuples(st.booleans(), EVENTS), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_a_bad_event_changes_nothing_about_its_neighbours(marked: list[tuple[bool, dict[str, Any]]]) -> None:
    with_bad = as_json([{"name": ""} if bad else event for bad, event in marked])
    with_good = as_json([{"name": "stand-in"} if bad else event for bad, event in marked])

    bad_places = {index for index, (bad, _) in enumerate(marked) if bad}
    assert with_bad.events == [event for event in with_good.events if event.place not in bad_places]
    refused = bad_places | {r.index for r in with_good.refusals}
    assert [refusal.index for refusal in with_bad.refusals] == sorted(refused)


@given(st.lists(VALUES | EVENTS, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_every_item_of_a_batch_is_either_an_event_or_a_refusal(items: list[Any]) -> None:
    batch = decode_json(items, ORIGIN)
    assert len(batch.events) + len(batch.refusals) == len(items)
    assert len({refusal.index for refusal in batch.refusals}) == len(batch.refusals)


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_a_retry_of_the_same_signed_request_has_the_same_identities(event: dict[str, Any]) -> None:
    later = replace(ORIGIN, received_at=micros(NOW + timedelta(seconds=9)))
    first, again = (decode_json([{"name": "a"}, event | {"ts": None}], origin) for origin in (ORIGIN, later))
    assert first == again

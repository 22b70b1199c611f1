"""The way of an event: in over either transport, signed, and back as it was, by every filter and page."""

import json
import math
import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Account, Stack
from credentials import Credentials, machine, person, signed
from google.protobuf.json_format import MessageToDict
from surface import RPCS
from transports import Fields, Transport, over_edge_grpc, over_grpc, over_native_grpc, over_rest, send

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.errors import Reason

INGEST, LIST, METRICS = (
    RPCS["EventService.IngestEvents"],
    RPCS["EventService.ListEvents"],
    RPCS["MetricsService.QueryMetrics"],
)
BOTH = [over_rest, over_native_grpc]
START = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
PROPS = {
    "page": "/ünïcode/日本",
    "n": -1.5,
    "big": 2**53,
    "list": [1, "two", None, False, {}],
    "nested": {"a": {"b": []}},
}


def at(seconds: int) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def ingest(stack: Stack, account: Account, events: list[Fields], transport: Transport = over_rest) -> tuple[int, int]:
    """Accepted and duplicates."""
    outcome = transport(stack, INGEST, {"project_id": account.project_id, "events": events}, machine(account))
    assert outcome.failure is None, outcome.failure
    assert outcome.response.rejected == 0, outcome.response
    return outcome.response.accepted, outcome.response.duplicates


def listed(
    stack: Stack, account: Account, transport: Transport = over_rest, **filters: object
) -> pb.ListEventsResponse:
    outcome = transport(stack, LIST, {"project_id": account.project_id, **filters}, machine(account))
    assert outcome.failure is None, outcome.failure
    return outcome.response


def names(response: pb.ListEventsResponse) -> list[str]:
    return [item.name for item in response.items]


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("write", BOTH)
def test_an_event_comes_back_as_it_went_in(stack: Stack, account: Account, write: Transport, read: Transport) -> None:
    event = {"name": "日本 🎉 page", "ts": at(0), "props": PROPS, "user_id": "ü-1", "idempotency_key": "κ"}
    before = datetime.now(UTC)
    assert ingest(stack, account, [event, {"name": "bare", "ts": at(-1)}], write) == (2, 0)
    full, bare = listed(stack, account, read).items
    assert (full.name, full.user_id, full.idempotency_key) == (event["name"], "ü-1", "κ")
    assert full.ts.ToDatetime(UTC) == START
    assert MessageToDict(full.props) == PROPS
    assert full.project_id == account.project_id
    assert before - timedelta(seconds=1) <= full.received_at.ToDatetime(UTC) <= datetime.now(UTC)
    assert (full.seq, bare.seq) == (1, 2)
    assert not bare.HasField("user_id")
    assert not bare.HasField("idempotency_key")
    assert MessageToDict(bare.props) == {}


def test_props_as_json_bytes_and_as_a_struct_are_the_same(stack: Stack, account: Account) -> None:
    events = [pb.Event(name="bytes", props_json=json.dumps(PROPS).encode()), pb.Event(name="struct")]
    events[0].ts.FromDatetime(START)
    events[1].ts.FromDatetime(START)
    events[1].props.update(PROPS)
    request = pb.IngestEventsRequest(project_id=account.project_id, events=events)
    for target in (stack.grpc_target, stack.edge_target):
        assert not over_grpc(target, INGEST, request, machine(account)).failure
    items = listed(stack, account).items
    assert [MessageToDict(item.props) for item in items] == [PROPS] * 4


def test_properties_is_another_name_for_props(stack: Stack, account: Account) -> None:
    body = {"project_id": account.project_id, "events": [{"name": "x", "properties": {"a": 1}}]}
    assert over_rest(stack, INGEST, body, machine(account)).response.accepted == 1
    assert MessageToDict(listed(stack, account).items[0].props) == {"a": 1}


def test_an_event_without_ts_has_the_time_of_its_signature(stack: Stack, account: Account) -> None:
    moment = time.time() - 100
    sign = signed(account.api_key_id, account.api_key_secret, f"{moment:.6f}")
    body = {"project_id": account.project_id, "events": [{"name": "x"}]}
    assert over_rest(stack, INGEST, body, sign).response.accepted == 1
    assert math.isclose(listed(stack, account).items[0].ts.ToDatetime(UTC).timestamp(), moment, abs_tol=1e-5)


PRO = {"plan": "pro", "tags": ["x", "y"], "deep": {"n": 1, "m": 2}}
FILTER_EVENTS = [
    {
        "name": "a",
        "ts": at(0),
        "user_id": "ada",
        "props": {"plan": "pro", "tags": ["x", "y"], "deep": {"n": 1, "m": 2}},
    },
    {"name": "b", "ts": at(1), "user_id": "bob", "props": {"plan": "free"}},
    {"name": "c", "ts": at(2), "user_id": "ada"},
    {"name": "é", "ts": at(3)},
]
FILTERS = [
    ({}, "écba"),
    ({"name": ["a"]}, "a"),
    ({"name": ["a", "c", "nothing"]}, "ca"),
    ({"name": ["é"]}, "é"),
    ({"user_id": "ada"}, "ca"),
    ({"user_id": "Ada"}, ""),
    ({"since": at(1)}, "écb"),
    ({"until": at(1)}, "a"),
    ({"since": at(1), "until": at(3)}, "cb"),
    ({"since": at(3), "until": at(3)}, ""),
    ({"since": "2026-01-02T04:04:06.678901+01:00"}, "écb"),
    ({"props": '{"plan": "pro"}'}, "a"),
    ({"props": '{"tags": ["y"]}'}, "a"),
    ({"props": '{"deep": {"n": 1}}'}, "a"),
    ({"props": '{"deep": {"n": 1}, "plan": "free"}'}, ""),
    ({"props": "{}"}, "écba"),
    ({"user_id": "ada", "name": ["a", "b"], "since": at(0), "props": '{"plan": "pro"}'}, "a"),
    ({"limit": 2}, "éc"),
    ({"limit": 2, "offset": 1}, "cb"),
    ({"offset": 4}, ""),
]


@pytest.mark.parametrize("transport", BOTH)
def test_each_filter_finds_what_it_says(stack: Stack, account: Account, transport: Transport) -> None:
    assert ingest(stack, account, FILTER_EVENTS, transport) == (4, 0)
    for filters, expected in FILTERS:
        response = listed(stack, account, transport, **filters)
        assert "".join(names(response)) == expected, filters
        assert (response.limit, response.offset) == (filters.get("limit", 50), filters.get("offset", 0))
        unpaged = {name: value for name, value in filters.items() if name not in {"limit", "offset"}}
        assert response.count == len(listed(stack, account, transport, **unpaged).items)


def test_metrics_count_an_event_as_soon_as_it_is_acknowledged(stack: Stack, account: Account) -> None:
    query = {"project_id": account.project_id, "bucket": "1m"}
    for count in range(1, 6):
        ingest(stack, account, [{"name": "x", "ts": at(count)}, {"name": "y", "ts": at(count)}], BOTH[count % 2])
        for transport in BOTH:
            series = transport(stack, METRICS, query, machine(account)).response.series
            assert [(p.ts.ToDatetime(), p.value) for p in series] == [(datetime(2026, 1, 2, 3, 4), 2.0 * count)]  # noqa: DTZ001  # as protobuf gives it


def credentials_at(account: Account, timestamp: str) -> Credentials:
    return signed(account.api_key_id, account.api_key_secret, timestamp)


@pytest.mark.parametrize("transport", BOTH)
def test_the_same_signed_request_again_stores_nothing(stack: Stack, account: Account, transport: Transport) -> None:
    sign = credentials_at(account, f"{time.time():.6f}")
    body = {"project_id": account.project_id, "events": [{"name": "a"}, {"name": "a"}, {"name": "b", "ts": at(0)}]}
    counted = []
    for _ in range(3):
        response = transport(stack, INGEST, body, sign).response
        counted.append((response.accepted, response.duplicates))
    assert counted == [(3, 0), (0, 3), (0, 3)]
    assert sorted(item.seq for item in listed(stack, account).items) == [1, 2, 3]


@pytest.mark.parametrize("ts", [{}, {"ts": at(0)}], ids=["without ts", "with ts"])
def test_a_retry_signed_anew_is_a_duplicate_by_its_key(stack: Stack, account: Account, ts: dict[str, str]) -> None:
    event = {"name": "paid", "user_id": "ada", "idempotency_key": "order-1", **ts}
    assert ingest(stack, account, [event, event]) == (1, 1)
    for transport in (over_rest, over_native_grpc, over_edge_grpc):
        assert ingest(stack, account, [event], transport) == (0, 1)
    changes: list[Fields] = [{"idempotency_key": "order-2"}, {"user_id": "bob"}, {"name": "refunded"}, {"ts": at(9)}]
    others = [{**event, **change} for change in changes]
    assert ingest(stack, account, others) == (4, 0)
    assert listed(stack, account).count == 5


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc, over_edge_grpc])
def test_a_full_batch_of_the_largest_events_goes_in_and_comes_back(
    stack: Stack, account: Account, transport: Transport
) -> None:
    large = {"text": "x" * (32_768 - len('{"text":""}'))}
    # What a request may have, 16 MiB, holds so many.
    events = [{"name": "large", "ts": at(index), "props": large, "context": large} for index in range(255)]
    assert ingest(stack, account, events, transport) == (255, 0)
    response = listed(stack, account, transport, limit=200)
    assert len(response.items) == (200 if transport is over_rest else 3_500_000 // 65_700)
    assert response.count == 255
    assert MessageToDict(response.items[-1].props) == MessageToDict(response.items[-1].context) == large


def test_one_event_too_many_or_too_large_is_not_half_stored(stack: Stack, account: Account) -> None:
    body = {"project_id": account.project_id, "events": [{"name": "x"}] * 1001}
    failure = over_rest(stack, INGEST, body, machine(account)).failure
    assert failure is not None
    assert failure.reason == Reason.BATCH_TOO_LARGE
    assert listed(stack, account).count == 0
    too_large = {"name": "x", "props": {"text": "x" * (32_769 - len('{"text":""}'))}}
    body["events"] = [too_large, {"name": "good"}]
    answer = send(stack, "POST", "/v1/events", json.dumps(body).encode(), account.bearer)
    assert (answer.json["accepted"], answer.json["errors"][0]["reason"]) == (1, Reason.FIELD_TOO_LONG)
    assert names(over_rest(stack, LIST, {"project_id": account.project_id}, person(account)).response) == ["good"]

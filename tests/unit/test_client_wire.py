"""What the Python client makes of what it is given, before anything is sent and after an answer came."""

import hashlib
import hmac
import json
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus_client import (
    Event,
    EventError,
    NimbusError,
    Receipt,
    RetryPolicy,
    signature_headers,
    wire,
)
from nimbus_client.errors import error_from

PROJECT = "11111111-1111-4111-8111-111111111111"
SECRET = "nbs_secret"
INGEST = "/nimbus.v1.EventService/IngestEvents"
NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


def test_event_fixes_its_identity_when_it_is_made() -> None:
    before = datetime.now(UTC)
    first, second = Event("a"), Event("a")
    assert before <= first.ts <= datetime.now(UTC)
    assert len(first.idempotency_key) == 32
    assert first.idempotency_key != second.idempotency_key
    assert wire.encode(first) == wire.encode(first) == wire.encode(pickle.loads(pickle.dumps(first)))


def test_event_keeps_the_identity_it_is_given() -> None:
    message = wire.encode(Event("a", "u", {"n": 1, "é": [None]}, NOON.astimezone(timezone(timedelta(hours=5))), "k"))
    assert message.idempotency_key == "k"
    assert message.ts.ToDatetime(UTC) == NOON
    assert message.props_json == '{"n":1,"é":[null]}'.encode()


def test_an_anonymous_id_and_a_context_are_sent() -> None:
    message = wire.encode(Event("a", anonymous_id="device-1", context={"page": {"path": "/é"}}))
    assert message.anonymous_id == "device-1"
    assert message.context_json == '{"page":{"path":"/é"}}'.encode()
    request = wire.list_request(PROJECT, (), None, None, None, None, "device-1", {"page": {}}, 1, None)
    assert (request.anonymous_id, request.context) == ("device-1", '{"page":{}}')


def test_event_without_props_or_user_sends_neither() -> None:
    message = wire.encode(Event("a"))
    assert message.WhichOneof("properties") is None
    assert message.WhichOneof("context_form") is None
    assert not message.HasField("user_id")
    assert not message.HasField("anonymous_id")


def test_times_without_a_time_zone_are_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="ts has no time zone"):
        Event("a", ts=naive)
    with pytest.raises(ValueError, match="start has no time zone"):
        wire.metrics_request(PROJECT, "1h", 1, naive, None, (), "", fill_zero=False)


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", object(), NOON])
def test_what_json_cannot_say_is_refused_with_its_index(value: object) -> None:
    with pytest.raises(ValueError, match="Event 1 can't be encoded"):
        wire.ingest_batches(PROJECT, [Event("fine"), Event("a", props={"x": value})])
    with pytest.raises(ValueError, match="Event 1 can't be encoded"):
        wire.ingest_batches(PROJECT, [Event("fine"), Event("a", context={"x": value})])


TEXT = st.text('aé"\\\0\u2028😀', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, JSON))
def test_props_arrive_as_they_were(props: dict[str, object]) -> None:
    assert json.loads(wire.json_object("props", props)) == props


# --- requests ---


@given(st.lists(st.integers(1, 100)), st.integers(1, 20), st.integers(100, 500))
def test_split_covers_everything_within_the_limits(sizes: list[int], max_events: int, max_bytes: int) -> None:
    parts = list(wire.split(sizes, max_events, max_bytes))
    assert [index for part in parts for index in part] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= max_events
        assert sum(sizes[i] for i in part) <= max_bytes
    for part, following in pairwise(parts):  # none ends earlier than it must
        assert len(part) == max_events or sum(sizes[i] for i in part) + sizes[following.start] > max_bytes


def test_batches_stay_below_the_byte_limit() -> None:
    batches = wire.ingest_batches(PROJECT, [Event("a", props={"x": "y" * 10_000}) for _ in range(1_000)])
    assert [batch.start for batch in batches] == sorted({batch.start for batch in batches})
    assert sum(len(batch.request.events) for batch in batches) == 1_000
    assert all(batch.request.ByteSize() <= wire.MAX_BYTES + 100 for batch in batches)
    assert len(batches) == 4


def test_an_event_that_fits_no_request_is_refused() -> None:
    with pytest.raises(ValueError, match="Event 0 has"):
        wire.ingest_batches(PROJECT, [Event("a", props={"x": "y" * wire.MAX_BYTES})])


def test_receipt_adds_up_and_counts_errors_from_the_callers_list() -> None:
    error = event_pb.EventError(index=1, field="name", reason="FIELD_REQUIRED", message="name is required.")
    first = event_pb.IngestEventsResponse(accepted=998, duplicates=1, rejected=1, errors=[error])
    second = event_pb.IngestEventsResponse(accepted=1, rejected=1, errors=[error])
    expected = tuple(EventError(i, "name", "FIELD_REQUIRED", "name is required.") for i in (1, 1_001))
    assert wire.receipt([0, 1_000], [first, second]) == Receipt(999, 1, 2, expected)


def test_one_name_is_not_taken_for_its_letters() -> None:
    assert list(wire.metrics_request(PROJECT, "1h", 1, None, None, "view", "", fill_zero=False).name) == ["view"]
    assert list(wire.metrics_request(PROJECT, "1h", 1, None, None, ("a", "b"), "", fill_zero=False).name) == ["a", "b"]


# --- signatures ---


def test_signature_is_the_documented_hmac() -> None:
    headers = signature_headers("nbk_key", SECRET, "/v1/metrics?project_id=1", b"", http_method="get", timestamp=17)
    expected = hmac.new(SECRET.encode(), b"17:GET:/v1/metrics?project_id=1:", hashlib.sha256).hexdigest()
    assert headers == {"x-api-key-id": "nbk_key", "x-api-timestamp": "17", "x-api-signature": expected}


def test_timestamps_carry_microseconds_so_that_equal_bodies_differ() -> None:
    assert signature_headers("k", "s", INGEST, b"", timestamp=1.5)["x-api-timestamp"] == "1.500000"
    assert len(signature_headers("k", "s", INGEST, b"")["x-api-timestamp"].split(".")[1]) == 6


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_what_is_transient(code: grpc.StatusCode) -> None:
    names = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"}
    assert NimbusError(code, "no", reason="A_REASON").transient == (code.name in names)
    # Without a word from Nimbus it was the connection that was cancelled.
    assert NimbusError(code, "no").transient == (code.name in names | {"CANCELLED"})


def test_what_is_too_large_stays_too_large() -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not NimbusError(exhausted, "The body is too large.", reason="BODY_TOO_LARGE").transient
    assert not NimbusError(exhausted, "SERVER: Received message larger than max (5 vs. 4)").transient


def test_details_that_cannot_be_read_do_not_hide_the_error() -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = error_from(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, None, metadata, "away"))
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.UNAVAILABLE, "", "away")


@given(attempt=st.integers(1, 2_000), asked=st.none() | st.floats(0, 100))
def test_waits_are_what_the_server_asks_and_a_bounded_backoff(attempt: int, asked: float | None) -> None:
    policy = RetryPolicy(first_wait_seconds=0.1, max_wait_seconds=5)
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    error = NimbusError(grpc.StatusCode.UNAVAILABLE, "no", retry_after_seconds=asked)
    state.set_exception((type(error), error, None))
    backoff = policy.wait(state) - (asked or 0)
    assert -1e-9 <= backoff <= min(5, 0.1 * 2.0 ** min(attempt - 1, 60)) + 1e-9


def test_an_attempt_gets_no_more_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nimbus_client.retries.time.monotonic", lambda: 100.0)
    policy = RetryPolicy(deadline_seconds=30, attempt_seconds=10)
    assert [policy.attempt_timeout(started) for started in (100.0, 78.0, 60.0)] == [10.0, 8.0, 0.0]

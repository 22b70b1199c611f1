"""The Python client: its pure logic, and its calls to a loopback server that sees what is on the wire."""

import asyncio
import hashlib
import hmac
import json
import math
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus.v1 import metrics_service_pb2 as metrics_pb
from nimbus.v1.event_service_pb2_grpc import EventServiceStub
from nimbus_client import (
    AsyncNimbus,
    Event,
    EventError,
    FieldViolation,
    MetricPoint,
    Nimbus,
    NimbusError,
    Receipt,
    RetryPolicy,
    StoredEvent,
    signature_headers,
    signed_aio_channel,
    signed_channel,
    wire,
)
from nimbus_client.errors import error_from

PROJECT = "11111111-1111-4111-8111-111111111111"
SECRET = "nbs_secret"
INGEST = "/nimbus.v1.EventService/IngestEvents"
AT_ONCE = RetryPolicy(deadline_seconds=10, attempt_seconds=5, first_wait_seconds=0, max_wait_seconds=0)
NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


# --- a server that keeps what it was sent ---


@dataclass
class Call:
    path: str
    metadata: dict[str, str]
    body: bytes

    @property
    def signature_holds(self) -> bool:
        signed = f"{self.metadata['x-api-timestamp']}:POST:{self.path}:".encode() + self.body
        expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.metadata["x-api-signature"], expected)

    @property
    def events(self) -> list[event_pb.Event]:
        return list(event_pb.IngestEventsRequest.FromString(self.body).events)


@dataclass
class Failure:
    """An answer that fails the call."""

    code: grpc.StatusCode
    details: tuple[Message, ...] = ()
    message: str = "no"


@dataclass
class Hang:
    """An answer that never comes."""


@dataclass
class Server(grpc.GenericRpcHandler):
    """Takes any RPC as raw bytes and gives the answers that it was told, then what it stored."""

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    answers: list[Message | Failure | Hang] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def answer(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            call = Call(handler_call_details.method, dict(context.invocation_metadata() or ()), body)  # type: ignore[arg-type]
            self.calls.append(call)
            if not call.signature_holds:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "The signature does not match.")
            planned = self.answers.pop(0) if self.answers else None
            if isinstance(planned, Hang):
                await asyncio.Event().wait()
            if isinstance(planned, Failure):
                details = status_pb2.Status(code=planned.code.value[0], message=planned.message)
                for detail in planned.details:
                    details.details.add().Pack(detail)
                metadata = (("grpc-status-details-bin", details.SerializeToString()),) if planned.details else ()
                await context.abort(planned.code, planned.message, metadata)
            if isinstance(planned, Message):
                return planned.SerializeToString()
            return event_pb.IngestEventsResponse(accepted=len(call.events)).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    aio_server = grpc.aio.server(handlers=[handler])
    handler.port = aio_server.add_insecure_port("localhost:0")
    await aio_server.start()
    yield handler
    await aio_server.stop(None)


Run = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(params=["sync", "async"])
async def run(request: pytest.FixtureRequest, server: Server) -> Run:
    """Makes either client, uses one method of it and closes it."""

    async def call(method: str, *args: object, retry: RetryPolicy = AT_ONCE, **kwargs: object) -> Any:
        identity: dict[str, Any] = {"project_id": PROJECT, "key_id": "nbk_key", "secret": SECRET, "retry": retry}
        if request.param == "async":
            async with AsyncNimbus(server.target, **identity) as client:
                return await getattr(client, method)(*args, **kwargs)

        def in_thread() -> Any:
            with Nimbus(server.target, **identity) as nimbus:
                return getattr(nimbus, method)(*args, **kwargs)

        return await asyncio.to_thread(in_thread)

    return call


# --- events ---


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


def test_event_without_props_or_user_sends_neither() -> None:
    message = wire.encode(Event("a"))
    assert message.WhichOneof("properties") is None
    assert not message.HasField("user_id")


def test_times_without_a_time_zone_are_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="ts has no time zone"):
        Event("a", ts=naive)
    with pytest.raises(ValueError, match="start has no time zone"):
        wire.metrics_request(PROJECT, "1h", 1, naive, None, ())


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", object(), NOON])
def test_what_json_cannot_say_is_refused_with_its_index(value: object) -> None:
    with pytest.raises(ValueError, match="Event 1 can't be encoded"):
        wire.ingest_batches(PROJECT, [Event("fine"), Event("a", props={"x": value})])


TEXT = st.text('aé"\\\0\u2028😀', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, JSON))
def test_props_arrive_as_they_were(props: dict[str, object]) -> None:
    assert json.loads(wire.props_json(props)) == props


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
    assert list(wire.metrics_request(PROJECT, "1h", 1, None, None, "view").name) == ["view"]
    assert list(wire.metrics_request(PROJECT, "1h", 1, None, None, ("a", "b")).name) == ["a", "b"]


# --- signatures ---


def test_signature_is_the_documented_hmac() -> None:
    headers = signature_headers("nbk_key", SECRET, "/v1/metrics?project_id=1", b"", http_method="get", timestamp=17)
    expected = hmac.new(SECRET.encode(), b"17:GET:/v1/metrics?project_id=1:", hashlib.sha256).hexdigest()
    assert headers == {"x-api-key-id": "nbk_key", "x-api-timestamp": "17", "x-api-signature": expected}


def test_timestamps_carry_microseconds_so_that_equal_bodies_differ() -> None:
    assert signature_headers("k", "s", INGEST, b"", timestamp=1.5)["x-api-timestamp"] == "1.500000"
    assert len(signature_headers("k", "s", INGEST, b"")["x-api-timestamp"].split(".")[1]) == 6


def many_keys() -> event_pb.IngestEventsRequest:
    props = Struct()
    props.update({f"key{i}": {f"inner{j}": j for j in range(5)} for i in range(300)})
    return event_pb.IngestEventsRequest(project_id=PROJECT, events=[event_pb.Event(name="a", props=props)])


@pytest.mark.asyncio
async def test_aio_channel_signs_the_bytes_it_sends(server: Server) -> None:
    async with signed_aio_channel(server.target, "nbk_key", SECRET) as channel:
        stub = EventServiceStub(channel)
        for _ in range(20):
            assert (await stub.IngestEvents(many_keys(), metadata=(("x-mine", "1"),))).accepted == 1
    assert all(call.signature_holds and call.path == INGEST for call in server.calls)
    assert server.calls[0].metadata["x-mine"] == "1"
    assert server.calls[0].metadata["x-api-key-id"] == "nbk_key"


@pytest.mark.asyncio
async def test_channel_signs_the_bytes_it_sends(server: Server) -> None:
    def calls() -> None:
        with signed_channel(server.target, "nbk_key", SECRET) as channel:
            stub = EventServiceStub(channel)
            for _ in range(20):
                assert stub.IngestEvents(many_keys()).accepted == 1
            assert stub.IngestEvents.with_call(many_keys())[0].accepted == 1
            assert stub.IngestEvents.future(many_keys()).result().accepted == 1

    await asyncio.to_thread(calls)
    assert len(server.calls) == 22
    assert all(call.signature_holds for call in server.calls)


@pytest.mark.asyncio
async def test_each_send_is_serialized_once(server: Server) -> None:
    serialized: list[bytes] = []

    def never_twice_the_same(request: int) -> bytes:
        serialized.append(f"{request}:{len(serialized)}".encode())
        return serialized[-1]

    async with signed_aio_channel(server.target, "nbk_key", SECRET) as channel:
        method: Any = channel.unary_unary("/any.Service/Method", never_twice_the_same)
        server.answers = [event_pb.IngestEventsResponse()]
        await method(7)
    assert [call.body for call in server.calls] == serialized == [b"7:0"]
    assert server.calls[0].signature_holds


# --- calls ---


@pytest.mark.asyncio
async def test_send_goes_in_requests_of_a_thousand(run: Run, server: Server) -> None:
    events = [Event(f"e{i}") for i in range(2_500)]
    assert await run("send", events) == Receipt(accepted=2_500)
    assert [len(call.events) for call in server.calls] == [1_000, 1_000, 500]
    assert [e.name for call in server.calls for e in call.events] == [e.name for e in events]


@pytest.mark.asyncio
async def test_send_of_nothing_makes_no_call(run: Run, server: Server) -> None:
    assert await run("send", []) == Receipt()
    assert server.calls == []


@pytest.mark.asyncio
async def test_retries_carry_the_same_identities_and_new_signatures(run: Run, server: Server) -> None:
    server.answers = [Failure(grpc.StatusCode.UNAVAILABLE), Failure(grpc.StatusCode.UNAVAILABLE)]
    receipt = await run("send", [Event("a", props={"x": 1}), Event("b", user_id="u")])
    assert receipt == Receipt(accepted=2)
    assert len(server.calls) == 3
    assert server.calls[0].events == server.calls[1].events == server.calls[2].events
    assert all(event.idempotency_key and event.HasField("ts") for event in server.calls[0].events)
    assert len({call.metadata["x-api-signature"] for call in server.calls}) == 3
    assert all(call.signature_holds for call in server.calls)


@pytest.mark.asyncio
async def test_only_the_request_that_failed_is_repeated(run: Run, server: Server) -> None:
    stored = event_pb.IngestEventsResponse(accepted=1_000)
    server.answers = [stored, Failure(grpc.StatusCode.ABORTED)]
    assert await run("send", [Event("a") for _ in range(1_001)]) == Receipt(accepted=1_001)
    assert [len(call.events) for call in server.calls] == [1_000, 1, 1]


@pytest.mark.asyncio
async def test_an_attempt_without_an_answer_is_given_up_and_repeated(run: Run, server: Server) -> None:
    server.answers = [Hang()]
    impatient = RetryPolicy(attempt_seconds=0.2, first_wait_seconds=0)
    assert await run("send", [Event("a")], retry=impatient) == Receipt(accepted=1)
    assert len(server.calls) == 2


@pytest.mark.asyncio
async def test_retries_end_at_the_deadline_with_the_last_error(run: Run, server: Server) -> None:
    server.answers = [Failure(grpc.StatusCode.UNAVAILABLE, message="away")] * 1_000
    with pytest.raises(NimbusError, match="UNAVAILABLE: away"):
        await run("send", [Event("a")], retry=RetryPolicy(0.1, 5, 0.02, 0.02))
    assert len(server.calls) > 1


@pytest.mark.asyncio
async def test_a_wait_beyond_the_deadline_is_not_begun(run: Run, server: Server) -> None:
    asked = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3_600))
    server.answers = [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, (asked,))]
    with pytest.raises(NimbusError) as caught:
        await run("send", [Event("a")])
    assert caught.value.retry_after_seconds == 3_600
    assert len(server.calls) == 1


@pytest.mark.asyncio
async def test_an_error_that_will_not_pass_is_raised_at_once(run: Run, server: Server) -> None:
    info = error_details_pb2.ErrorInfo(reason="FIELD_REQUIRED", domain="nimbus")
    wrong = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="project_id", description="is required")]
    )
    server.answers = [Failure(grpc.StatusCode.INVALID_ARGUMENT, (info, wrong), "project_id is required.")]
    with pytest.raises(NimbusError) as caught:
        await run("metrics")
    error = caught.value
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_REQUIRED",
        "project_id is required.",
    )
    assert error.violations == (FieldViolation("project_id", "is required"),)
    assert str(error) == "INVALID_ARGUMENT FIELD_REQUIRED: project_id is required.\n  project_id: is required"
    assert len(server.calls) == 1


@pytest.mark.asyncio
async def test_metrics_are_points_in_utc(run: Run, server: Server) -> None:
    point = metrics_pb.MetricPoint(ts=wire.timestamp(NOON, "ts"), value=3)
    server.answers = [metrics_pb.QueryMetricsResponse(series=[point])]
    assert await run("metrics", bucket="1d", limit=7, start=NOON, names=["a"]) == [MetricPoint(NOON, 3.0)]
    sent = metrics_pb.QueryMetricsRequest.FromString(server.calls[0].body)
    assert (sent.project_id, sent.bucket, sent.limit, list(sent.name)) == (PROJECT, "1d", 7, ["a"])
    assert sent.start.ToDatetime(UTC) == NOON
    assert not sent.HasField("end")


@pytest.mark.asyncio
async def test_list_events_pages_from_the_last_event(run: Run, server: Server) -> None:
    at = wire.timestamp(NOON, "ts")
    item = event_pb.StoredEvent(id="i", seq=4, name="a", ts=at, received_at=at, user_id="u")
    item.props.update({"n": 1.5, "deep": {"list": [None, True]}})
    server.answers = [event_pb.ListEventsResponse(items=[item]), event_pb.ListEventsResponse()]
    [event] = await run("list_events", names="a", props={"n": 1.5}, limit=1)
    assert event == StoredEvent("i", 4, "a", "u", {"n": 1.5, "deep": {"list": [None, True]}}, NOON, None, NOON)
    assert await run("list_events", after=event) == []
    first, second = (event_pb.ListEventsRequest.FromString(call.body) for call in server.calls)
    assert (list(first.name), first.props, first.limit, first.after_id) == (["a"], '{"n":1.5}', 1, "")
    assert (second.after_id, second.after_ts.ToDatetime(UTC)) == ("i", NOON)


# --- when to retry ---


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_what_is_transient(code: grpc.StatusCode) -> None:
    names = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"}
    assert NimbusError(code, "no").transient == (code.name in names)


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

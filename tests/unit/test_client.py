"""The Python client against a loopback server that sees what is on the wire."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus.v1 import metrics_service_pb2 as metrics_pb
from nimbus.v1.event_service_pb2_grpc import EventServiceStub
from nimbus_client import (
    AsyncNimbus,
    Event,
    FieldViolation,
    MetricPoint,
    Nimbus,
    NimbusError,
    Receipt,
    RetryPolicy,
    StoredEvent,
    signed_aio_channel,
    signed_channel,
    wire,
)

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
    # Time for two attempts, and for the second one to be answered.
    asked = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=600_000_000))
    server.answers = [Failure(grpc.StatusCode.UNAVAILABLE, (asked,), "away")] * 1_000
    with pytest.raises(NimbusError, match="UNAVAILABLE: away"):
        await run("send", [Event("a")], retry=RetryPolicy(1.0, 5, 0.02, 0.02))
    assert len(server.calls) == 2


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

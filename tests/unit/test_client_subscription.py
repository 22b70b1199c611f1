"""Subscriptions of the Python client against a loopback server whose streams do as they are told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client import AsyncNimbus, Nimbus, NimbusError, RetryPolicy

PROJECT = "11111111-1111-4111-8111-111111111111"
KEY = {"project_id": PROJECT, "key_id": "nbk_key", "secret": "nbs_secret"}
AT_ONCE = RetryPolicy(first_wait_seconds=0, max_wait_seconds=0)


def said(position: int, *seqs: int) -> pb.SubscribeEventsResponse:
    return pb.SubscribeEventsResponse(
        events=[event_pb.StoredEvent(seq=seq, name="a", props_json=b"{}") for seq in seqs], position=position
    )


class Ends:
    """The stream ends as if all were well."""


Step = pb.SubscribeEventsResponse | grpc.StatusCode | Ends


@dataclass
class Server(grpc.GenericRpcHandler):
    """One plan for each stream; one that has come to its end is silent. Acknowledgements are kept."""

    port: int = 0
    plans: list[list[Step]] = field(default_factory=list)
    requests: list[pb.SubscribeEventsRequest] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def target(self) -> str:
        return f"localhost:{self.port}"

    @property
    def resumed(self) -> list[int]:
        return [request.after_seq for request in self.requests[1:]]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())

        async def stream(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            self.requests.append(pb.SubscribeEventsRequest.FromString(body))
            self.signatures.append(str(metadata["x-api-signature"]))
            try:
                for step in self.plans.pop(0):
                    if isinstance(step, Ends):
                        return
                    if isinstance(step, grpc.StatusCode):
                        await context.abort(step, "no")
                    yield step.SerializeToString()
                await asyncio.Event().wait()
            finally:
                self.left.set()

        async def ack(body: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.acked.append(pb.AckPositionRequest.FromString(body).position)
            return b""

        if handler_call_details.method.endswith("AckPosition"):
            return grpc.unary_unary_rpc_method_handler(ack)
        return grpc.unary_stream_rpc_method_handler(stream)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    aio_server = grpc.aio.server(handlers=[handler])
    handler.port = aio_server.add_insecure_port("localhost:0")
    await aio_server.start()
    yield handler
    await aio_server.stop(None)


@pytest_asyncio.fixture
async def nimbus(server: Server) -> AsyncIterator[AsyncNimbus]:
    async with AsyncNimbus(server.target, retry=AT_ONCE, **KEY) as client:
        yield client


BROKEN: list[list[Step]] = [
    [said(3)],
    [said(3), said(5, 4, 5), grpc.StatusCode.CANCELLED],
    [grpc.StatusCode.UNAVAILABLE],
    [said(5), said(9), Ends()],
    [said(9), grpc.StatusCode.INTERNAL],
    [said(9), said(11, 10, 11)],
]


async def test_it_resumes_behind_what_it_was_told_and_signs_anew(
    server: Server, nimbus: AsyncNimbus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_client.aio_subscription.SILENCE_SECONDS_MAX", 0.3)
    server.plans = [*BROKEN]
    events = nimbus.subscribe()
    assert [(await anext(events)).seq for _ in range(4)] == [4, 5, 10, 11]
    assert server.resumed == [3, 5, 5, 9, 9]
    assert len(set(server.signatures)) == len(server.requests)


async def test_the_iterator_for_threads_does_the_same(server: Server) -> None:
    server.plans = BROKEN[1:]

    def read() -> list[int]:
        with Nimbus(server.target, retry=AT_ONCE, **KEY) as nimbus, nimbus.subscribe() as events:
            return [next(events).seq for _ in range(4)]

    assert await asyncio.to_thread(read) == [4, 5, 10, 11]
    assert server.resumed == [5, 5, 9, 9]


async def test_an_iterator_for_threads_leaves_a_stream_that_has_fallen_silent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_client.silence.SILENCE_SECONDS_MAX", 0.3)
    monkeypatch.setattr("nimbus_client.silence.LOOK_SECONDS", 0.05)
    server.plans = [[said(3), said(4, 4)], [said(4), said(5, 5)]]

    def read() -> list[int]:
        with Nimbus(server.target, retry=AT_ONCE, **KEY) as nimbus, nimbus.subscribe() as events:
            return [next(events).seq for _ in range(2)]

    assert await asyncio.to_thread(read) == [4, 5]
    assert server.resumed == [4]


async def test_one_that_nobody_keeps_ends_its_stream(server: Server, nimbus: AsyncNimbus) -> None:
    server.plans = [[said(3), said(4, 4)]]
    async for event in nimbus.subscribe():
        assert event.seq == 4
        break
    await server.left.wait()


async def test_a_subscription_says_once_that_nimbus_is_away_and_once_that_it_is_back(
    server: Server, nimbus: AsyncNimbus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nimbus_client")
    away: list[list[Step]] = [[grpc.StatusCode.UNAVAILABLE]] * 5
    server.plans = [*away, [said(3), said(4, 4), grpc.StatusCode.UNAVAILABLE], *away, [said(4), said(5, 5)]]
    events = nimbus.subscribe()
    assert [(await anext(events)).seq for _ in range(2)] == [4, 5]
    said_so = [(record.levelname, record.getMessage().split(":")[0].split(".")[0]) for record in caplog.records]
    assert said_so == [
        ("WARNING", "A subscription can't be opened, and is tried again"),
        ("INFO", "Subscribed behind position 3"),
        ("WARNING", "A subscription was interrupted, and is being resumed"),
        ("INFO", "Subscribed behind position 4"),
    ]


async def test_an_error_is_raised_and_the_iteration_can_be_gone_on_with(server: Server, nimbus: AsyncNimbus) -> None:
    server.plans = [[said(3), said(4, 4), grpc.StatusCode.NOT_FOUND], [said(4), said(5, 5)]]
    events = nimbus.subscribe()
    assert (await anext(events)).seq == 4
    with pytest.raises(NimbusError) as caught:
        await anext(events)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert (await anext(events)).seq == 5
    assert server.resumed == [4]


async def test_an_iteration_that_was_cancelled_loses_nothing(server: Server, nimbus: AsyncNimbus) -> None:
    server.plans = [[said(3), said(4, 4)], [said(4), said(5, 5)]]
    events = nimbus.subscribe()
    assert (await anext(events)).seq == 4
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(events), 0.05)
    await server.left.wait()
    assert (await anext(events)).seq == 5
    assert server.resumed == [4]


@pytest.mark.parametrize("what", ["subscription", "client"])
async def test_closing_ends_the_loop_of_whoever_waits(server: Server, nimbus: AsyncNimbus, what: str) -> None:
    server.plans = [[said(3), said(4, 4)]]
    events = nimbus.subscribe()
    one, seqs = asyncio.Event(), []

    async def read() -> None:
        async for event in events:
            seqs.append(event.seq)
            one.set()

    reading = asyncio.create_task(read())
    await one.wait()
    await (events.aclose() if what == "subscription" else nimbus.close())
    await reading
    assert seqs == [4]
    await server.left.wait()


async def test_batches_hold_what_came_together(server: Server, nimbus: AsyncNimbus) -> None:
    server.plans = [[said(3), said(9, 4, 7), said(12, 11)]]
    events = nimbus.subscribe()
    assert (await anext(events)).seq == 4
    got = []
    async for batch in events.batches():
        got.append(([event.seq for event in batch.events], batch.position, events.position))
        if batch.position == 12:
            break
    assert got == [([7], 9, 9), ([11], 12, 12)]


async def test_a_consumer_acknowledges_what_it_came_back_from(server: Server, nimbus: AsyncNimbus) -> None:
    server.plans = [[said(3), said(6, 4, 5, 6), said(9)]]
    async with nimbus.subscribe(consumer="c", ack_seconds=0) as events:
        assert (await anext(events)).seq == 4
        assert server.acked == []
        assert (await anext(events)).seq == 5
        assert server.acked == [4]
    assert server.acked == [4]

    server.plans = [[said(4), said(6, 5, 6), said(9), said(10, 10)]]
    async with nimbus.subscribe(consumer="c", ack_seconds=60) as events:
        assert [(await anext(events)).seq for _ in range(3)] == [5, 6, 10]
        await events.ack()
    assert server.acked == [4, 10]

    server.plans = [[said(10), said(12, 11, 12)]]
    async with nimbus.subscribe(consumer="c", ack_seconds=None) as events:
        assert [(await anext(events)).seq for _ in range(2)] == [11, 12]
    assert server.acked[-1] == 10

    with pytest.raises(ValueError, match="consumer"):
        await nimbus.subscribe().ack()

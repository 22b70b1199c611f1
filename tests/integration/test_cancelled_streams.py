"""A stream that its client cancels, at whatever moment, leaves nothing behind, without any garbage collection."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import psycopg
import pytest
from one_worker import OneWorker, one_worker
from psycopg import sql
from streaming import until
from websockets.asyncio.client import unix_connect

from nimbus.v1 import event_service_pb2, stream_service_pb2
from nimbus_server.ingest.service import STREAM_AHEAD

COUNT = 20
SUBSCRIBE = "/nimbus.v1.StreamService/SubscribeEvents"
SERVER_SENT = "/nimbus.v1.StreamService/StreamEvents"
INGEST = "/nimbus.v1.EventService/IngestEventStream"
LARGE = b'{"x": "%s"}' % (b"y" * 10_000)
# So much of a message gets through before the client asks for it; the rest waits in the server.
NARROW = (("grpc.http2.lookahead_bytes", 5), ("grpc.http2.bdp_probe", 0))


@pytest.fixture
async def one(dsn: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OneWorker]:
    async with one_worker(dsn, scratch, monkeypatch) as one:
        await one.ingest(1, LARGE)
        yield one
        gc.collect()
        await asyncio.sleep(0)
        assert one.problems == []


def subscribe(one: OneWorker, channel: grpc.aio.Channel, number: int) -> grpc.aio.UnaryStreamCall:
    request = stream_service_pb2.SubscribeEventsRequest(project_id=one.project_id, consumer=f"c{number}", after_seq=1)
    return channel.unary_stream(SUBSCRIBE, type(request).SerializeToString, None)(request, metadata=one.person)


def server_sent(one: OneWorker, channel: grpc.aio.Channel, _number: int) -> grpc.aio.UnaryStreamCall:
    request = stream_service_pb2.StreamEventsRequest(project_id=one.project_id, start="earliest")
    return channel.unary_stream(SERVER_SENT, type(request).SerializeToString, None)(request, metadata=one.person)


def ingest_stream(one: OneWorker, channel: grpc.aio.Channel, _number: int) -> grpc.aio.StreamStreamCall:
    """With one event after the other, for as long as they are taken."""

    async def batches() -> AsyncIterator[event_service_pb2.IngestEventStreamRequest]:
        while True:
            yield event_service_pb2.IngestEventStreamRequest(
                project_id=one.project_id, events=[event_service_pb2.Event(name="n")]
            )

    serialize = event_service_pb2.IngestEventStreamRequest.SerializeToString
    return channel.stream_stream(INGEST, serialize, None)(batches(), metadata=one.person)


OPEN = {"SubscribeEvents": subscribe, "StreamEvents": server_sent, "IngestEventStream": ingest_stream}


async def nothing_is_left(one: OneWorker) -> None:
    try:
        await until(lambda: not one.in_hand)
    except TimeoutError:
        pytest.fail(f"there is left: {one.in_hand}")


async def all_consumers_are_free(one: OneWorker, count: int) -> None:
    """Each can be opened again at once."""
    again = [subscribe(one, one.channel, number) for number in range(count)]
    await asyncio.gather(*(call.read() for call in again))
    for call in again:
        call.cancel()


async def every_stream_is_stuck(one: OneWorker, dsn: str, rpc: str) -> None:
    """Its client takes nothing, and it has begun to send what is next."""
    if rpc == "IngestEventStream":
        query = "SELECT last_seq FROM streams WHERE project_id = %s"
        async with asyncio.timeout(10), await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while await (await connection.execute(query, (one.project_id,))).fetchone() != (1 + COUNT * STREAM_AHEAD,):
                pass
        return
    await until(lambda: one.streams == COUNT)
    await until(lambda: all(s._sender and not s._waiting for s in one.worker._hub.subscriptions))


async def cancelled_they_leave_nothing(one: OneWorker, calls: Iterable[grpc.aio.Call]) -> None:
    for call in calls:
        call.cancel()
    await nothing_is_left(one)
    await all_consumers_are_free(one, COUNT)
    await nothing_is_left(one)


@pytest.mark.parametrize("rpc", OPEN)
async def test_streams_cancelled_at_their_first_message_leave_nothing(one: OneWorker, dsn: str, rpc: str) -> None:
    async with grpc.aio.insecure_channel(one.address, options=NARROW) as channel:
        calls = [OPEN[rpc](one, channel, number) for number in range(COUNT)]
        await every_stream_is_stuck(one, dsn, rpc)
        await cancelled_they_leave_nothing(one, calls)


@pytest.mark.parametrize("rpc", ["SubscribeEvents", "StreamEvents"])
async def test_streams_cancelled_in_the_middle_of_a_message_leave_nothing(one: OneWorker, dsn: str, rpc: str) -> None:
    await one.ingest(100, LARGE)
    async with grpc.aio.insecure_channel(one.address, options=NARROW) as channel:
        calls = [OPEN[rpc](one, channel, number) for number in range(COUNT)]
        await asyncio.gather(*(call.read() for call in calls))
        await until(lambda: all(s.position > 0 for s in one.worker._hub.subscriptions))
        await every_stream_is_stuck(one, dsn, rpc)
        await cancelled_they_leave_nothing(one, calls)


@asynccontextmanager
async def slow(dsn: str, table: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Every statement that touches the table waits; to be asked whether one does."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with (
        await psycopg.AsyncConnection.connect(dsn) as holder,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher,
    ):

        async def somebody_waits() -> bool:
            return await (await watcher.execute(waiting)).fetchone() != (0,)

        await holder.execute(sql.SQL("LOCK TABLE {}").format(sql.Identifier(table)))
        yield somebody_waits
        await holder.rollback()


@pytest.mark.parametrize("rpc", OPEN)
async def test_streams_cancelled_while_the_database_is_slow_leave_nothing(one: OneWorker, dsn: str, rpc: str) -> None:
    for table in ("sessions", "members", "streams", *(["consumers"] if rpc == "SubscribeEvents" else [])):
        async with slow(dsn, table) as somebody_waits:
            calls = [OPEN[rpc](one, one.channel, number) for number in range(COUNT)]
            reading = [asyncio.create_task(call.read()) for call in calls]
            async with asyncio.timeout(10):
                while not await somebody_waits():
                    pass
            for call in calls:
                call.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        await nothing_is_left(one)
        await all_consumers_are_free(one, COUNT)
        await nothing_is_left(one)


async def test_sockets_cut_at_their_first_message_leave_nothing(one: OneWorker) -> None:
    async def cut(number: int) -> None:
        address = f"ws://localhost/ws/projects/{one.project_id}?start=earliest&consumer=c{number}"
        async with unix_connect(str(one.sockets), address, additional_headers=one.person) as socket:
            await socket.recv()
            socket.transport.abort()

    await one.ingest(100, LARGE)
    await asyncio.gather(*map(cut, range(COUNT)))
    await nothing_is_left(one)
    await all_consumers_are_free(one, COUNT)
    await nothing_is_left(one)

"""The calls that make a load. Each context manager connects before the clock starts and gives what `drive` calls."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc

from nimbus.v1.event_service_pb2 import IngestEventsResponse
from nimbus_server.bench.events import Requests
from nimbus_server.bench.failures import failure_of, stored, stored_over_http
from nimbus_server.bench.http import HttpConnection
from nimbus_server.bench.load import FailedError, Send
from nimbus_server.bench.stream import EventStream
from nimbus_server.bench.target import Target, open_channel

Method = grpc.aio.UnaryUnaryMultiCallable[bytes, Any]

INGEST_RPC = "/nimbus.v1.EventService/IngestEvents"
INGEST_PATH = "/v1/events"
CALL_SECONDS_MAX = 30
CONNECT_SECONDS_MAX = 5
# Batches that a stream has sent before the first of them is acknowledged.
STREAM_AHEAD = 2


@asynccontextmanager
async def grpc_ingest(target: Target, requests: Requests, in_flight: int) -> AsyncIterator[list[Send]]:
    """IngestEvents, each call in flight on a connection of its own."""

    def sender(channel: grpc.aio.Channel) -> Send:
        method: Method = channel.unary_unary(INGEST_RPC, None, IngestEventsResponse.FromString)

        async def send() -> int:
            raw = requests.next()
            try:
                return stored(
                    await method(raw, metadata=target.headers("POST", INGEST_RPC, raw), timeout=CALL_SECONDS_MAX)
                )
            except grpc.aio.AioRpcError as error:
                raise failure_of(error) from None

        return send

    async with _connected(target, in_flight) as channels:
        yield [sender(channel) for channel in channels]


@asynccontextmanager
async def stream_ingest(target: Target, requests: Requests, in_flight: int) -> AsyncIterator[list[Send]]:
    """IngestEventStream on several connections, `in_flight` batches sent and not acknowledged in all."""
    async with _connected(target, max(1, in_flight // STREAM_AHEAD)) as channels:
        streams = [EventStream(target, channel, requests) for channel in channels]
        try:
            yield [streams[n % len(streams)].send for n in range(in_flight)]
        finally:
            for stream in streams:
                stream.close()


@asynccontextmanager
async def rest_ingest(target: Target, requests: Requests, connections: int) -> AsyncIterator[list[Send]]:
    """POST /v1/events over connections that are kept open."""
    senders = [_RestSender(target, requests) for _ in range(connections)]
    ending = asyncio.create_task(_end_late_calls(senders))
    try:
        for sender in senders:
            with suppress(OSError):
                await sender.connect()
        yield [sender.send for sender in senders]
    finally:
        ending.cancel()
        for sender in senders:
            sender.connection.close()


@asynccontextmanager
async def grpc_query(target: Target, rpc: str, raw: bytes) -> AsyncIterator[list[Send]]:
    """The same question again and again, one at a time."""
    async with _connected(target, 1) as (channel,):
        method: Method = channel.unary_unary(rpc, None, None)

        async def send() -> int:
            try:
                await method(raw, metadata=target.headers("POST", rpc, raw), timeout=CALL_SECONDS_MAX)
            except grpc.aio.AioRpcError as error:
                raise failure_of(error) from None
            return 0

        yield [send]


@asynccontextmanager
async def _connected(target: Target, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(target.grpc_target)) for _ in range(count)]
        # What can't be reached will fail, and be counted, call by call.
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield channels


class _RestSender:
    """Sends over a connection of its own, and over a new one where that is lost."""

    def __init__(self, target: Target, requests: Requests) -> None:
        self._target = target
        self._requests = requests
        self.connection = HttpConnection()
        self.sent_at = math.inf

    async def connect(self) -> None:
        """Raises OSError."""
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            self.connection = await HttpConnection.open(self._target.url)

    async def send(self) -> int:
        """Send a request and return the events stored. Raises FailedError."""
        try:
            if not self.connection.is_open:
                await self.connect()
            self.sent_at = time.monotonic()
            raw = self._target.http_request("POST", INGEST_PATH, self._requests.next())
            status, body = await self.connection.request(raw)
        except OSError as error:  # TimeoutError is one
            raise FailedError(type(error).__name__, str(error)) from None
        finally:
            self.sent_at = math.inf
        return stored_over_http(status, body)


async def _end_late_calls(senders: list[_RestSender]) -> None:
    """A timeout for each call would cost as much as all the rest of it."""
    while True:
        await asyncio.sleep(1)
        for sender in senders:
            if time.monotonic() - sender.sent_at > CALL_SECONDS_MAX:
                sender.connection.close()

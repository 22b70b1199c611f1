"""Many streams that are read as fast as they come, by one process that takes no look at the events."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from http2_streams import Http2Streams
from ready_made import BATCH_EVENTS

from nimbus.v1.event_service_pb2 import Event, IngestEventsRequest, IngestEventsResponse
from nimbus.v1.stream_service_pb2 import PROPS_FORM_JSON, SubscribeEventsRequest
from nimbus_server.bench.target import Target, open_channel

SUBSCRIBE_RPC = "/nimbus.v1.StreamService/SubscribeEvents"
INGEST_RPC = "/nimbus.v1.EventService/IngestEvents"
STREAMS_A_CONNECTION = 100
READY_SECONDS_MAX = 60
# Heartbeats, and what says where a stream starts.
SHORT = 16

# Takes the number of a stream and a message of it.
Receive = Callable[[int, bytes], None]
# RPC, request and metadata.
Call = tuple[str, bytes, tuple[tuple[str, str], ...]]


@asynccontextmanager
async def open_streams(address: str, calls: Sequence[Call], receive: Receive) -> AsyncIterator[None]:
    """Streams of RPC, request and metadata; ready when each has sent its first message."""
    missing, ready = set(range(len(calls))), asyncio.Event()

    def on_message(number: int, message: bytes) -> None:
        if missing:
            missing.discard(number)
            if not missing:
                ready.set()
        receive(number, message)

    connections = []
    host, _, port = address.partition(":")
    try:
        for first in range(0, len(calls), STREAMS_A_CONNECTION):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda first=first: Http2Streams(lambda number, message: on_message(first + number, message)),
                host,
                int(port),
            )
            connections.append(connection)
            for rpc, request, metadata in calls[first : first + STREAMS_A_CONNECTION]:
                connection.call(address, rpc, request, metadata)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait(
            [waiting, *(connection.ended for connection in connections)],
            timeout=READY_SECONDS_MAX,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()
        _check(connections, len(missing))
        yield
        _check(connections, 0)
    finally:
        for connection in connections:
            connection.close()


def _check(connections: Sequence[Http2Streams], missing: int) -> None:
    ended = [connection.ended.result() for connection in connections if connection.ended.done()]
    if missing or ended:
        raise RuntimeError(f"{missing} streams sent nothing; {ended[:3]}")


@asynccontextmanager
async def stuck_streams(target: Target, count: int) -> AsyncIterator[None]:
    """Streams of everything that are read no further than to their first message."""
    rpc, request, metadata = subscription(target)
    async with open_channel(target.grpc_target) as channel:
        calls: list[Any] = [channel.unary_stream(rpc)(request, metadata=metadata) for _ in range(count)]
        for call in calls:
            await call.read()
        yield


def subscription(target: Target, batch_events_max: int = 0, name: str | None = None) -> Call:
    """A signed SubscribeEvents for what comes from now on, or what comes by this name."""
    request = SubscribeEventsRequest(
        project_id=target.project_id,
        props_form=PROPS_FORM_JSON,
        batch_events_max=batch_events_max,
        name=[name] if name else [],
    ).SerializeToString()
    return SUBSCRIBE_RPC, request, target.headers("POST", SUBSCRIBE_RPC, request)


class Writer:
    """Sends batches of BATCH_EVENTS to one project, and knows when each was sent."""

    def __init__(self, target: Target, channel: grpc.aio.Channel) -> None:
        self._target = target
        self._method: Any = channel.unary_unary(INGEST_RPC, None, IngestEventsResponse.FromString)
        self.sent_at: list[float] = []

    async def send(self) -> None:
        """Send a batch; durable on return."""
        events = [
            Event(name="page_view", user_id=f"user-{n}", props_json=b'{"path": "/pricing", "plan": "pro"}')
            for n in range(BATCH_EVENTS)
        ]
        raw = IngestEventsRequest(project_id=self._target.project_id, events=events).SerializeToString()
        self.sent_at.append(time.perf_counter())
        answer = await self._method(raw, metadata=self._target.headers("POST", INGEST_RPC, raw))
        if answer.accepted != BATCH_EVENTS:
            raise RuntimeError(f"{answer.accepted} of {BATCH_EVENTS} events were accepted")

"""One IngestEventStream call with several senders."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import grpc

from nimbus.v1.event_service_pb2 import IngestEventsResponse, IngestEventStreamResponse
from nimbus_server.bench.events import Requests
from nimbus_server.bench.failures import failure_of, stored
from nimbus_server.bench.load import FailedError
from nimbus_server.bench.target import Target

STREAM_RPC = "/nimbus.v1.EventService/IngestEventStream"
ACKNOWLEDGED_SECONDS_MAX = 30


class EventStream:
    """Sends batches over one call; opens another one where it has ended."""

    def __init__(self, target: Target, channel: grpc.aio.Channel, requests: Requests) -> None:
        self._target = target
        self._method: Any = channel.stream_stream(STREAM_RPC, None, IngestEventStreamResponse.FromString)
        self._requests = requests
        self._turn = asyncio.Lock()
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[int]] = deque()

    async def send(self) -> int:
        """Send a batch and return the events in it when it is acknowledged. Raises FailedError."""
        raw = self._requests.next()
        acknowledged: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ACKNOWLEDGED_SECONDS_MAX):
                async with self._turn:
                    if self._reader is None or self._reader.done():
                        # The signature of the first message is that of the stream.
                        self._call = self._method(metadata=self._target.headers("POST", STREAM_RPC, raw))
                        self._reader = asyncio.create_task(self._read(self._call))
                    self._waiting.append(acknowledged)
                    # Why a call has ended is for its reader to say.
                    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                        await self._call.write(raw)
                return await acknowledged
        except TimeoutError:
            self.close()
            raise FailedError("TimeoutError", "A batch was not acknowledged.") from None

    def close(self) -> None:
        """End the call."""
        if self._reader is not None:
            self._call.cancel()
            self._reader.cancel()

    async def _read(self, call: Any) -> None:
        failure = FailedError("UNAVAILABLE", "The stream has ended.")
        try:
            async for response in call:
                self._acknowledge(response.result)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
        finally:
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(failure)

    def _acknowledge(self, result: IngestEventsResponse) -> None:
        waiting = self._waiting.popleft()
        if waiting.done():
            return
        try:
            waiting.set_result(stored(result))
        except FailedError as refusal:
            waiting.set_exception(refusal)

"""A subscription for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from tenacity import AsyncRetrying

from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client.errors import NimbusError, nimbus_errors
from nimbus_client.events import EventBatch, StoredEvent
from nimbus_client.progress import SILENCE_SECONDS_MAX, Progress
from nimbus_client.retries import RetryPolicy


class AsyncSubscription:
    """The events of a project as they come, for `async for`; or, with `batches()`, many at a time.

    Where the stream breaks, the next one is opened behind what was handed out, so that nothing is skipped or repeated.
    Iterating raises NimbusError where that can't help, or has not helped for `deadline_seconds`. Events are read as
    they are asked for, and an iteration that was cancelled can be gone on with.

    With a consumer the server remembers what is done: an event, once the next one is asked for. That is told to it
    every `ack_seconds`, and on the way out of `async with`.
    """

    def __init__(
        self,
        stub: Any,
        request: pb.SubscribeEventsRequest,
        policy: RetryPolicy,
        *,
        deadline_seconds: float | None = None,
        ack_seconds: float | None = None,
        on_stream: Callable[[int], None] | None = None,
        on_break: Callable[[NimbusError], None] | None = None,
    ) -> None:
        """`AsyncNimbus.subscribe` makes it. `stub` has what it uses of a StreamServiceStub.

        `on_stream` is told where each stream starts, `on_break` why one broke that will be opened again; by default
        both are logged.
        """
        self._stub = stub
        self._request = request
        self._policy = policy
        self._progress = progress = Progress(request, policy, deadline_seconds)
        self._ack_seconds = ack_seconds if request.consumer else None
        self._ack_at = time.monotonic() + (ack_seconds or 0.0)
        self._on_stream = on_stream or (lambda _: progress.log_stream())
        self._on_break = on_break or progress.log_break
        self._call: Any = None
        self._fresh = True
        self._closed = False

    @property
    def position(self) -> int | None:
        """Everything up to here was handed out, or does not match; None before the first stream.

        `after_seq` with it goes on from here.
        """
        return self._progress.handed

    def __del__(self) -> None:
        # A loop that was left without `async with` leaves nothing running on the server.
        self._drop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        if await self._more():
            return self._progress.next_event()
        raise StopAsyncIteration

    async def batches(self) -> AsyncIterator[EventBatch]:
        """The same events, as many at a time as there are. A batch is done once the next one is asked for."""
        while await self._more():
            yield self._progress.next_batch()

    async def ack(self, position: int | None = None) -> None:
        """Tell the server now that all is done up to `position`: by default all that was handed out, the last included.

        Raises NimbusError, and ValueError where there is no consumer.
        """
        if not self._request.consumer:
            raise ValueError("Only a consumer acknowledges: subscribe with consumer=.")
        position = self.position if position is None else position
        if position is not None:
            await AsyncRetrying(**self._policy.options())(self._acknowledge, position)

    async def aclose(self) -> None:
        """Acknowledge what is done, and end the stream. An iteration that waits ends."""
        if not self._closed:
            self._closed = True
            self._drop()
            self._ack_at = 0.0
            await self._acknowledge_if_due()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        # What went wrong in the block is the news.
        with nullcontext() if exc_type is None else suppress(NimbusError):
            await self.aclose()

    async def _more(self) -> bool:
        """Whether there is something to hand out; False after `aclose`."""
        there = self._progress.come_back()
        await self._acknowledge_if_due()
        while not there and not self._closed:
            try:
                response = await self._read()
            except NimbusError as error:
                self._drop()
                if self._closed:
                    break
                wait = self._progress.wait_after(error)
                self._on_break(error)
                await asyncio.sleep(wait)
                continue
            if response is None:
                self._closed = True
                break
            there = self._progress.take(response)
            if self._fresh:
                self._fresh = False
                self._on_stream(self._progress.position)
            if not there:
                await self._acknowledge_if_due()
        return not self._closed

    async def _read(self) -> pb.SubscribeEventsResponse | None:
        """The next response, of a new stream where there is none; None where the client was closed meanwhile."""
        if self._call is None:
            self._call = self._stub.SubscribeEvents(self._progress.request())
            self._fresh = True
        try:
            with nimbus_errors():
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    response = await self._call.read()
        except TimeoutError:
            raise NimbusError(grpc.StatusCode.DEADLINE_EXCEEDED, "The stream has fallen silent.") from None
        except asyncio.CancelledError:
            # gRPC ends a call whose reader is cancelled, and cancels the reader of a call that is ended here.
            self._drop()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None
        if response is grpc.aio.EOF:
            raise NimbusError(grpc.StatusCode.UNAVAILABLE, "The stream has ended.")
        message: pb.SubscribeEventsResponse = response
        return message

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _acknowledge_if_due(self) -> None:
        position = self._progress.to_acknowledge
        if self._ack_seconds is None or position is None or time.monotonic() < self._ack_at:
            return
        self._ack_at = time.monotonic() + self._ack_seconds
        try:
            await self._acknowledge(position)
        except NimbusError as error:
            if not (error.transient or error.connection_lost):
                raise

    async def _acknowledge(self, position: int) -> None:
        request = pb.AckPositionRequest(
            project_id=self._request.project_id, consumer=self._request.consumer, position=position
        )
        with nimbus_errors():
            await self._stub.AckPosition(request, timeout=self._policy.attempt_seconds)
        self._progress.acknowledged(position)

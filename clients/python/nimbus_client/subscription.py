"""A subscription for threads."""

import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self

import grpc
from tenacity import Retrying

from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client.errors import NimbusError, nimbus_errors
from nimbus_client.events import EventBatch, StoredEvent
from nimbus_client.progress import Progress
from nimbus_client.retries import RetryPolicy
from nimbus_client.silence import Watch


class Subscription:
    """`AsyncSubscription` for threads: for `for`, or with `batches()` many events at a time. One thread iterates it."""

    def __init__(
        self,
        stub: Any,
        request: pb.SubscribeEventsRequest,
        policy: RetryPolicy,
        *,
        deadline_seconds: float | None = None,
        ack_seconds: float | None = None,
    ) -> None:
        """`Nimbus.subscribe` makes it."""
        self._stub = stub
        self._request = request
        self._policy = policy
        self._progress = Progress(request, policy, deadline_seconds)
        self._ack_seconds = ack_seconds if request.consumer else None
        self._ack_at = time.monotonic() + (ack_seconds or 0.0)
        self._call: Any = None
        self._watch = Watch()
        self._fresh = True
        self._closed = False

    @property
    def position(self) -> int | None:
        """See AsyncSubscription."""
        return self._progress.handed

    def __del__(self) -> None:
        # A loop that was left without `with` leaves nothing running.
        self._watch.close()
        self._drop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoredEvent:
        if self._more():
            return self._progress.next_event()
        raise StopIteration

    def batches(self) -> Iterator[EventBatch]:
        """See AsyncSubscription."""
        while self._more():
            yield self._progress.next_batch()

    def ack(self, position: int | None = None) -> None:
        """See AsyncSubscription."""
        if not self._request.consumer:
            raise ValueError("Only a consumer acknowledges: subscribe with consumer=.")
        position = self.position if position is None else position
        if position is not None:
            Retrying(**self._policy.options())(self._acknowledge, position)

    def close(self) -> None:
        """Acknowledge what is done, and end the stream. An iteration that waits, in another thread, ends."""
        if not self._closed:
            self._closed = True
            self._watch.close()
            self._drop()
            self._ack_at = 0.0
            self._acknowledge_if_due()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        # What went wrong in the block is the news.
        with nullcontext() if exc_type is None else suppress(NimbusError):
            self.close()

    def _more(self) -> bool:
        """Whether there is something to hand out; False after `close`."""
        there = self._progress.come_back()
        self._acknowledge_if_due()
        while not there and not self._closed:
            try:
                response = self._read()
            except NimbusError as error:
                self._drop()
                if self._closed:
                    break
                wait = self._progress.wait_after(error)
                self._progress.log_break(error)
                time.sleep(wait)
                continue
            there = self._progress.take(response)
            if self._fresh:
                self._fresh = False
                self._progress.log_stream()
            if not there:
                self._acknowledge_if_due()
        return not self._closed

    def _read(self) -> pb.SubscribeEventsResponse:
        """The next response, of a new stream where there is none."""
        call = self._call
        if call is None:
            self._call = call = self._stub.SubscribeEvents(self._progress.request())
            self._fresh = True
        try:
            with nimbus_errors(), self._watch.over(call):
                response: pb.SubscribeEventsResponse | None = next(call, None)
        except NimbusError:
            if self._watch.has_cancelled:
                raise NimbusError(grpc.StatusCode.DEADLINE_EXCEEDED, "The stream has fallen silent.") from None
            raise
        if response is None:
            raise NimbusError(grpc.StatusCode.UNAVAILABLE, "The stream has ended.")
        return response

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _acknowledge_if_due(self) -> None:
        position = self._progress.to_acknowledge
        if self._ack_seconds is None or position is None or time.monotonic() < self._ack_at:
            return
        self._ack_at = time.monotonic() + self._ack_seconds
        try:
            self._acknowledge(position)
        except NimbusError as error:
            if not (error.transient or error.connection_lost):
                raise

    def _acknowledge(self, position: int) -> None:
        request = pb.AckPositionRequest(
            project_id=self._request.project_id, consumer=self._request.consumer, position=position
        )
        with nimbus_errors():
            self._stub.AckPosition(request, timeout=self._policy.attempt_seconds)
        self._progress.acknowledged(position)

"""The client for threads."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypeVar

import grpc
from tenacity import Retrying

from nimbus.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from nimbus.v1.event_service_pb2_grpc import EventServiceStub
from nimbus.v1.metrics_service_pb2_grpc import MetricsServiceStub
from nimbus.v1.stream_service_pb2 import AckPositionRequest, DeleteConsumerRequest, ListConsumersRequest
from nimbus.v1.stream_service_pb2_grpc import StreamServiceStub
from nimbus_client import wire
from nimbus_client.asking import Asking
from nimbus_client.channel import signed_channel
from nimbus_client.errors import nimbus_errors
from nimbus_client.events import Consumer, Event, MetricPoint, Receipt, StoredEvent
from nimbus_client.progress import subscribe_request
from nimbus_client.retries import RetryPolicy
from nimbus_client.subscription import Subscription

Request = TypeVar("Request")
Response = TypeVar("Response")


class Nimbus(Asking):
    """Sends events to one project and queries it. One object serves any number of threads; `close` it, or use `with`.

    `target` is a gRPC target such as `localhost:50051`. `secure` uses TLS with the system's roots, `credentials` your
    own. Every method raises `NimbusError` where a call fails for good, or for longer than the retry policy's deadline.
    """

    def __init__(
        self,
        target: str,
        *,
        project_id: str,
        key_id: str,
        secret: str,
        secure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Connects with the first call, not here."""
        self._project_id = project_id
        self._retry = retry or RetryPolicy()
        self._channel = signed_channel(target, key_id, secret, secure=secure, credentials=credentials)
        self._events = EventServiceStub(self._channel)
        self._metrics = MetricsServiceStub(self._channel)
        self._analyses = AnalysisServiceStub(self._channel)
        self._streams = StreamServiceStub(self._channel)

    def send(self, events: Iterable[Event]) -> Receipt:
        """Stores events; they are durable when this returns. More than 1,000 go in several requests, one after another.

        Raises ValueError, before anything is sent, for an event that can't be encoded. After a NimbusError, sending the
        same objects again stores nothing twice.
        """
        batches = wire.ingest_batches(self._project_id, events)
        responses = [self._call(self._events.IngestEvents, batch.request) for batch in batches]
        return wire.receipt((batch.start for batch in batches), responses)

    def metrics(
        self,
        *,
        bucket: str = "1h",
        limit: int = 100,
        start: datetime | None = None,
        end: datetime | None = None,
        names: str | Iterable[str] = (),
        timezone: str = "",
        fill_zero: bool = False,
    ) -> list[MetricPoint]:
        """Events per bucket (`1m`, `5m`, `15m`, `1h`, `1d`, `1w`, `1mo`): the newest `limit` buckets, oldest first.

        Days and longer are those of `timezone`, or of the project's. Buckets without events come with `fill_zero`.
        """
        request = wire.metrics_request(self._project_id, bucket, limit, start, end, names, timezone, fill_zero)
        return wire.metric_points(self._call(self._metrics.QueryMetrics, request).series)

    def metrics_by_name(
        self,
        *,
        bucket: str = "1h",
        limit: int = 100,
        start: datetime | None = None,
        end: datetime | None = None,
        names: str | Iterable[str] = (),
        timezone: str = "",
        fill_zero: bool = False,
    ) -> dict[str, list[MetricPoint]]:
        """As `metrics`, for each of the 100 most frequent names of events."""
        request = wire.metrics_request(self._project_id, bucket, limit, start, end, names, timezone, fill_zero)
        request.group_by = "name"
        response = self._call(self._metrics.QueryMetrics, request)
        return {group.name: wire.metric_points(group.series) for group in response.groups}

    def list_events(
        self,
        *,
        names: str | Iterable[str] = (),
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        props: Mapping[str, object] | None = None,
        anonymous_id: str | None = None,
        context: Mapping[str, object] | None = None,
        limit: int = 50,
        after: StoredEvent | None = None,
    ) -> list[StoredEvent]:
        """The newest `limit` events, 200 at most, newest first. The next page starts `after` the last of this one."""
        request = wire.list_request(
            self._project_id, names, user_id, since, until, props, anonymous_id, context, limit, after
        )
        return wire.stored_events(self._call(self._events.ListEvents, request))

    def subscribe(
        self,
        *,
        after_seq: int | None = None,
        start: Literal["latest", "earliest"] = "latest",
        since: datetime | None = None,
        names: str | Iterable[str] = (),
        user_id: str | None = None,
        props: Mapping[str, object] | None = None,
        anonymous_id: str | None = None,
        context: Mapping[str, object] | None = None,
        consumer: str | None = None,
        take_over: bool = False,
        ack_seconds: float | None = 5.0,
        deadline_seconds: float | None = None,
    ) -> Subscription:
        """The project's events as they come: `for event in nimbus.subscribe()`. It resumes by itself.

        Starts behind `after_seq`, with what was received `since`, or with the `start` of your choice; a `consumer` that
        has a position starts there. `take_over` ends another stream of that consumer. What is done is acknowledged
        every `ack_seconds`; None leaves it to `ack`. While Nimbus is away it is tried again for `deadline_seconds`,
        by default without end. Raises ValueError for arguments that contradict each other.
        """
        request = subscribe_request(
            self._project_id,
            after_seq=after_seq,
            start=start,
            since=since,
            names=names,
            user_id=user_id,
            props=props,
            anonymous_id=anonymous_id,
            context=context,
            consumer=consumer,
            take_over=take_over,
        )
        return Subscription(
            self._streams, request, self._retry, deadline_seconds=deadline_seconds, ack_seconds=ack_seconds
        )

    def consumers(self) -> list[Consumer]:
        """The project's consumers by name."""
        request = ListConsumersRequest(project_id=self._project_id)
        return [wire.consumer(item) for item in self._call(self._streams.ListConsumers, request).items]

    def rewind(self, consumer: str, position: int) -> Consumer:
        """Has a consumer go on behind a position, back or forth, when it comes next. Do it while it has no stream.

        One that runs goes on where it is, and moves the position on with its next acknowledgement.
        """
        request = AckPositionRequest(project_id=self._project_id, consumer=consumer, position=position, rewind=True)
        return wire.consumer(self._call(self._streams.AckPosition, request))

    def forget_consumer(self, consumer: str) -> None:
        """Forgets a consumer and its position; a stream that it has open ends."""
        request = DeleteConsumerRequest(project_id=self._project_id, consumer=consumer)
        self._call(self._streams.DeleteConsumer, request)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        # A question may take longer than an attempt of another call.
        return self._call(method, request, self._retry.deadline_seconds)

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        attempt_seconds: float | None = None,
    ) -> Response:
        started = time.monotonic()

        def attempt() -> Response:
            with nimbus_errors():
                return method(request, timeout=self._retry.attempt_timeout(started, attempt_seconds))

        return Retrying(**self._retry.options())(attempt)

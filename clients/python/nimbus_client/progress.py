"""Where a subscription stands, and what becomes of it when its stream breaks: the part without I/O."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from nimbus.v1 import stream_service_pb2 as pb
from nimbus_client.errors import NimbusError
from nimbus_client.events import EventBatch, StoredEvent
from nimbus_client.retries import RetryPolicy
from nimbus_client.wire import contained, listed, stored_event, timestamp

log = logging.getLogger("nimbus_client")

HEARTBEAT_SECONDS = 5
# A stream that is silent for longer is dead, whatever the connection says. A busy server may take its time.
SILENCE_SECONDS_MAX = HEARTBEAT_SECONDS + 10.0
# The server lets a consumer go 10 s after it has last heard of the stream that had it.
BUSY_SECONDS_MAX = 20.0


def subscribe_request(
    project_id: str,
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
) -> pb.SubscribeEventsRequest:
    """The request that opens a subscription. Raises ValueError for arguments that contradict each other."""
    if start not in {"latest", "earliest"}:
        raise ValueError(f"start is 'latest' or 'earliest', not {start!r}.")
    if [after_seq is not None, since is not None, start == "earliest"].count(True) > 1:
        raise ValueError("after_seq, since and start='earliest' do not go together.")
    if consumer == "" or (take_over and consumer is None):
        raise ValueError("A consumer needs a name.")
    request = pb.SubscribeEventsRequest(
        project_id=project_id,
        name=listed(names),
        user_id=user_id,
        props=contained("props", props),
        anonymous_id=anonymous_id,
        context=contained("context", context),
        props_form=pb.PROPS_FORM_JSON,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        consumer=consumer or "",
        consumer_conflict=pb.CONSUMER_CONFLICT_TAKE_OVER if take_over else pb.CONSUMER_CONFLICT_REFUSE,
    )
    if after_seq is not None:
        request.after_seq = after_seq
    elif since is not None:
        request.since.CopyFrom(timestamp(since, "since"))
    else:
        request.start_point = pb.START_POINT_EARLIEST if start == "earliest" else pb.START_POINT_LATEST
    return request


class Progress:
    """What was received, handed out and done, in this order; each is a position.

    The caller is done with what was handed out once they come back for more. A stream is opened again behind what was
    received, which is done by then: a subscription reads on only when all of it is handed out.
    """

    def __init__(self, request: pb.SubscribeEventsRequest, policy: RetryPolicy, deadline_seconds: float | None) -> None:
        self.done: int | None = None
        self.handed: int | None = None
        self.acked: int | None = None
        self._received: int | None = None
        self._waiting: deque[StoredEvent] = deque()
        self._first_request = request
        self._policy = policy
        self._deadline_seconds = deadline_seconds
        self._failures = 0
        self._failing_since = self._busy_since = 0.0

    def request(self) -> pb.SubscribeEventsRequest:
        """What to open the next stream with."""
        if self._received is None:
            return self._first_request
        request = pb.SubscribeEventsRequest()
        request.CopyFrom(self._first_request)
        request.after_seq = self._received
        # Whoever has taken the consumer over from us since is not to lose it again.
        request.consumer_conflict = pb.CONSUMER_CONFLICT_REFUSE
        return request

    @property
    def position(self) -> int:
        """What is behind us: the next stream goes on from here."""
        return self._received or 0

    def log_stream(self) -> None:
        """Log that a stream is there."""
        log.info("Subscribed behind position %d.", self.position)

    def log_break(self, error: NimbusError) -> None:
        """Log why there is no stream, once until there is one."""
        what = (
            "can't be opened, and is tried again" if self._received is None else "was interrupted, and is being resumed"
        )
        log.log(logging.WARNING if self._failures == 1 else logging.DEBUG, "A subscription %s. %s", what, error)

    @property
    def to_acknowledge(self) -> int | None:
        """What the server does not know yet to be done, if anything."""
        return self.done if self.done is not None and self.acked is not None and self.done > self.acked else None

    def acknowledged(self, position: int) -> None:
        """The server knows that all is done up to there."""
        self.acked = max(position, self.acked or 0)

    def come_back(self) -> bool:
        """The caller wants more. Says whether there is some; otherwise `take` the next response."""
        self.done = self.handed
        return bool(self._waiting)

    def take(self, response: pb.SubscribeEventsResponse) -> bool:
        """Keep what a response brings. Says whether there are events to hand out."""
        self._failures = 0
        self._busy_since = 0.0
        if self._received is None:
            self.acked = self._received = response.position
        # A consumer goes on behind what it has acknowledged, and that may be less than was handed out.
        seen = self._received
        self._waiting.extend(stored_event(event) for event in response.events if event.seq > seen)
        self._received = max(seen, response.position)
        if not self._waiting:
            self.handed = self.done = self._received
        return bool(self._waiting)

    def next_event(self) -> StoredEvent:
        """Hand out one event."""
        event = self._waiting.popleft()
        self.handed = event.seq if self._waiting else self._received
        return event

    def next_batch(self) -> EventBatch:
        """Hand out all that is there."""
        batch = EventBatch(tuple(self._waiting), self._received or 0)
        self._waiting.clear()
        self.handed = self._received
        return batch

    def wait_after(self, error: NimbusError) -> float:
        """Seconds to wait before the next stream is opened. Raises the error where it is not to be."""
        now = time.monotonic()
        if not (error.transient or error.connection_lost):
            raise error
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
        if self._failures == 1 and error.reason == "WORKER_UNAVAILABLE":
            wait = 0.0  # it stops, and others go on
        else:
            wait = self._policy.wait_after(self._failures, error)
        if self._deadline_seconds is not None and now + wait > self._failing_since + self._deadline_seconds:
            raise error
        if error.reason == "CONSUMER_BUSY":
            self._busy_since = self._busy_since or now
            if now + wait > self._busy_since + BUSY_SECONDS_MAX:
                raise error
        return wait

"""From what callers pass to the requests that are sent, and from the responses to what callers get."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1 import event_service_pb2 as event_pb
from nimbus.v1 import metrics_service_pb2 as metrics_pb
from nimbus.v1 import stream_service_pb2 as stream_pb
from nimbus_client.events import Consumer, Event, EventError, MetricPoint, Receipt, StoredEvent, aware

MAX_EVENTS = 1_000
# Below gRPC's default limit of 4 MiB for a received message, which proxies on the way may have as well.
MAX_BYTES = 3 * 1024 * 1024
# Field number and length in front of an event in a request.
EVENT_OVERHEAD_BYTES = 6


class Batch(NamedTuple):
    """One request of a `send`; `start` is the index of its first event in the caller's list."""

    start: int
    request: event_pb.IngestEventsRequest


def ingest_batches(project_id: str, events: Iterable[Event]) -> list[Batch]:
    """The requests that carry `events`, in order. Raises ValueError with the index of one that can't be encoded."""
    encoded = [_encode_at(index, event) for index, event in enumerate(events)]
    sizes = [event.ByteSize() + EVENT_OVERHEAD_BYTES for event in encoded]
    for index, size in enumerate(sizes):
        if size > MAX_BYTES:
            raise ValueError(f"Event {index} has {size} bytes and would not fit into a request.")
    return [
        Batch(part.start, event_pb.IngestEventsRequest(project_id=project_id, events=encoded[part.start : part.stop]))
        for part in split(sizes, MAX_EVENTS, MAX_BYTES)
    ]


def split(sizes: Sequence[int], max_events: int, max_bytes: int) -> Iterator[range]:
    """Ranges of indexes that together cover `sizes`, each as long as the limits allow."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == max_events or total + size > max_bytes):
            yield range(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))


def encode(event: Event) -> event_pb.Event:
    """The event as it is sent, props and context as compact JSON."""
    message = event_pb.Event(
        name=event.name,
        ts=timestamp(event.ts, "ts"),
        user_id=event.user_id,
        idempotency_key=event.idempotency_key,
        anonymous_id=event.anonymous_id,
    )
    if event.props is not None:
        message.props_json = json_object("props", event.props)
    if event.context is not None:
        message.context_json = json_object("context", event.context)
    return message


def json_object(field: str, value: Mapping[str, object]) -> bytes:
    """`value` as JSON. Raises ValueError for NaN and infinities, TypeError for what is no mapping or no JSON."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a mapping such as a dict, not {type(value).__name__}.")
    return json.dumps(dict(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def contained(field: str, value: Mapping[str, object] | None) -> str:
    """The filter for events whose `field` contains `value`; empty for none."""
    return json_object(field, value).decode() if value else ""


def timestamp(moment: datetime, field: str) -> Timestamp:
    """`moment` to the microsecond. Raises ValueError where it has no time zone."""
    message = Timestamp()
    message.FromDatetime(aware(moment, field))
    return message


def receipt(starts: Iterable[int], responses: Iterable[event_pb.IngestEventsResponse]) -> Receipt:
    """The sum of the responses, with error indexes as in the caller's list."""
    total = Receipt()
    for start, response in zip(starts, responses, strict=True):
        errors = (EventError(start + e.index, e.field, e.reason, e.message) for e in response.errors)
        total = Receipt(
            accepted=total.accepted + response.accepted,
            duplicates=total.duplicates + response.duplicates,
            rejected=total.rejected + response.rejected,
            errors=(*total.errors, *errors),
        )
    return total


def metrics_request(
    project_id: str,
    bucket: str,
    limit: int,
    start: datetime | None,
    end: datetime | None,
    names: str | Iterable[str],
    timezone: str,
    fill_zero: bool,
) -> metrics_pb.QueryMetricsRequest:
    """The request of `metrics`."""
    return metrics_pb.QueryMetricsRequest(
        project_id=project_id,
        bucket=bucket,
        limit=limit,
        start=timestamp(start, "start") if start else None,
        end=timestamp(end, "end") if end else None,
        name=listed(names),
        timezone=timezone,
        fill="zero" if fill_zero else "",
    )


def metric_points(series: Iterable[metrics_pb.MetricPoint]) -> list[MetricPoint]:
    """The points of a series."""
    return [MetricPoint(point.ts.ToDatetime(UTC), point.value) for point in series]


def list_request(
    project_id: str,
    names: str | Iterable[str],
    user_id: str | None,
    since: datetime | None,
    until: datetime | None,
    props: Mapping[str, object] | None,
    anonymous_id: str | None,
    context: Mapping[str, object] | None,
    limit: int,
    after: StoredEvent | None,
) -> event_pb.ListEventsRequest:
    """The request of `list_events`."""
    return event_pb.ListEventsRequest(
        project_id=project_id,
        name=listed(names),
        user_id=user_id,
        since=timestamp(since, "since") if since else None,
        until=timestamp(until, "until") if until else None,
        props=contained("props", props),
        anonymous_id=anonymous_id,
        context=contained("context", context),
        limit=limit,
        after_ts=timestamp(after.ts, "after.ts") if after else None,
        after_id=after.id if after else "",
    )


def stored_events(response: event_pb.ListEventsResponse) -> list[StoredEvent]:
    """The events of a page."""
    return [stored_event(item) for item in response.items]


def stored_event(item: event_pb.StoredEvent) -> StoredEvent:
    """An event of a page or of a stream."""
    return StoredEvent(
        id=item.id,
        seq=item.seq,
        name=item.name,
        user_id=item.user_id if item.HasField("user_id") else None,
        props=json.loads(item.props_json) if item.HasField("props_json") else MessageToDict(item.props),
        anonymous_id=item.anonymous_id if item.HasField("anonymous_id") else None,
        context=json.loads(item.context_json) if item.HasField("context_json") else MessageToDict(item.context),
        ts=item.ts.ToDatetime(UTC),
        idempotency_key=item.idempotency_key if item.HasField("idempotency_key") else None,
        received_at=item.received_at.ToDatetime(UTC),
        props_json=item.props_json if item.HasField("props_json") else None,
        context_json=item.context_json if item.HasField("context_json") else None,
    )


def consumer(item: stream_pb.Consumer) -> Consumer:
    """A consumer of a response."""
    return Consumer(item.name, item.position, item.lag, item.active, item.acked_at.ToDatetime(UTC))


def _encode_at(index: int, event: Event) -> event_pb.Event:
    try:
        return encode(event)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Event {index} can't be encoded: {error}") from error


def listed(names: str | Iterable[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)

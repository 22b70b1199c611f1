"""Events as SubscribeEvents sends them."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import orjson

from nimbus.v1 import event_service_pb2 as events_pb
from nimbus.v1 import stream_service_pb2 as pb
from nimbus_server.rpc.fields import struct, timestamp
from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.page import Form


def _message(project_id: UUID, event: StreamedEvent) -> events_pb.StoredEvent:
    return events_pb.StoredEvent(
        id=str(event.id),
        project_id=str(project_id),
        seq=event.seq,
        name=event.name,
        ts=timestamp(event.ts),
        user_id=event.user_id,
        idempotency_key=event.idempotency_key,
        received_at=timestamp(event.received_at),
        anonymous_id=event.anonymous_id,
    )


def _with_struct(project_id: UUID, event: StreamedEvent) -> events_pb.StoredEvent:
    message = _message(project_id, event)
    message.props.CopyFrom(struct(orjson.loads(event.props_json)))
    message.context.CopyFrom(struct(orjson.loads(event.context_json)))
    return message


def _with_json(project_id: UUID, event: StreamedEvent) -> events_pb.StoredEvent:
    message = _message(project_id, event)
    message.props_json = event.props_json.encode()
    message.context_json = event.context_json.encode()
    return message


def _response(events: Iterable[events_pb.StoredEvent], position: int) -> bytes:
    return pb.SubscribeEventsResponse(events=events, position=position).SerializeToString()


def _struct_batch(project_id: UUID, events: Sequence[StreamedEvent], position: int) -> bytes:
    return _response((_with_struct(project_id, event) for event in events), position)


def _json_batch(project_id: UUID, events: Sequence[StreamedEvent], position: int) -> bytes:
    return _response((_with_json(project_id, event) for event in events), position)


def _heartbeat(position: int) -> bytes:
    return _response((), position)


STRUCT_PROPS = Form(_struct_batch, _heartbeat)
JSON_PROPS = Form(_json_batch, _heartbeat)

"""Events as JSON text, in the shape of `GET /v1/events`: for server-sent events and WebSockets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.page import Form


def event_json(project_id: UUID, event: StreamedEvent) -> dict[str, Any]:
    """What orjson makes the JSON of an event of; positions are text, as protobuf's JSON has 64-bit integers."""
    fields: dict[str, Any] = {
        "id": event.id,
        "project_id": project_id,
        "seq": str(event.seq),
        "name": event.name,
        "ts": _time(event.ts),
        "props": orjson.Fragment(event.props_json),
    }
    if event.user_id is not None:
        fields["user_id"] = event.user_id
    if event.idempotency_key is not None:
        fields["idempotency_key"] = event.idempotency_key
    fields["received_at"] = _time(event.received_at)
    if event.anonymous_id is not None:
        fields["anonymous_id"] = event.anonymous_id
    fields["context"] = orjson.Fragment(event.context_json)
    return fields


def _time(at: datetime) -> str:
    # As protobuf's JSON has it: no fraction, or three or six digits.
    micros = at.microsecond
    spec = "seconds" if micros == 0 else "milliseconds" if micros % 1000 == 0 else "microseconds"
    return at.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def _sse_batch(project_id: UUID, events: Sequence[StreamedEvent], _position: int) -> bytes:
    return b"".join(
        b"id: %d\nevent: event\ndata: %s\n\n" % (event.seq, orjson.dumps(event_json(project_id, event)))
        for event in events
    )


def _sse_position(position: int) -> bytes:
    return b'id: %d\nevent: position\ndata: {"position": "%d"}\n\n' % (position, position)


SSE = Form(_sse_batch, _sse_position)


def _socket_batch(project_id: UUID, events: Sequence[StreamedEvent], position: int) -> bytes:
    shown = [event_json(project_id, event) for event in events]
    return orjson.dumps({"type": "events", "position": str(position), "events": shown})


def _socket_position(position: int) -> bytes:
    return b'{"type":"position","position":"%d"}' % position


WEBSOCKET = Form(_socket_batch, _socket_position)

"""A batch as a subscriber gets it, and what can be read off one without parsing it."""

from datetime import UTC, datetime
from uuid import UUID

from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.proto_form import JSON_PROPS

BATCH_EVENTS = 20
_AT = datetime(2025, 11, 1, 12, 0, 0, 123456, UTC)
_EVENTS = [
    StreamedEvent(UUID(int=n), n, _AT, _AT, "page_view", f"user-{n}", None, '{"path": "/pricing", "plan": "pro"}')
    for n in range(BATCH_EVENTS)
]
MESSAGE = JSON_PROPS.batch(UUID(int=0), _EVENTS, 123_456)


def position_of(message: bytes) -> int:
    """`position`, the last field of a SubscribeEventsResponse: a varint, whose bytes but the last have the top bit."""
    start = len(message) - 1
    while message[start - 1] >= 0x80:
        start -= 1
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(message[start:]))

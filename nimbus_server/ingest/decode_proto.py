"""Events that come as protobuf messages."""

from collections.abc import Sequence
from typing import Any

from nimbus_server.clock import SECOND
from nimbus_server.errors import Reason
from nimbus_server.ingest.decode import Batch, Origin, decode, valid_event
from nimbus_server.ingest.event import EventRefusedError, NewEvent
from nimbus_server.ingest.props import check_props_json, encode_props, struct_to_dict


def decode_proto(events: Sequence[Any], origin: Origin, first: int = 0) -> Batch:
    """Events as nimbus.v1.Event messages, of which the first has the index `first`."""
    return decode(events, origin, _read, first)


def _read(place: int, event: Any, origin: Origin) -> NewEvent:
    # HasField costs as much as a value: it is asked only where an empty value leaves it open.
    sent_ts, user_id, key, props_json = event.ts, event.user_id, event.idempotency_key, event.props_json
    seconds, nanos, ts = sent_ts.seconds, sent_ts.nanos, None
    if seconds or event.HasField("ts"):
        if not 0 <= nanos < SECOND * 1000:
            raise EventRefusedError("ts", Reason.FIELD_INVALID, "ts must be a valid Timestamp.")
        ts = seconds * SECOND + nanos // 1000
    if props_json:
        props = check_props_json(props_json)
    else:
        kind = event.WhichOneof("properties")
        if kind == "props":
            props = encode_props(struct_to_dict(event.props))
        else:
            props = b"{}" if kind is None else check_props_json(props_json)
    return valid_event(
        place,
        event.name,
        ts,
        user_id if user_id or event.HasField("user_id") else None,
        key if key or event.HasField("idempotency_key") else None,
        props,
        origin,
    )

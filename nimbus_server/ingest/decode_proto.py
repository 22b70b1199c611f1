"""Events that come as protobuf messages."""

from collections.abc import Sequence
from typing import Any

from nimbus_server.clock import SECOND
from nimbus_server.errors import Reason
from nimbus_server.ingest.decode import Batch, Origin, decode, valid_events
from nimbus_server.ingest.event import PROPS_DEPTH_MAX, EventRefusedError, NewEvent
from nimbus_server.ingest.props import check_all_props_json, check_props_json, encode_props, struct_to_dict


class UnparsableEvent:
    """Stands for an event that is not a valid message: whoever reads a field of it gets the refusal."""

    def __getattr__(self, _name: str) -> Any:
        raise EventRefusedError(
            "events",
            Reason.REQUEST_UNPARSABLE,
            "The event is not a valid nimbus.v1.Event message: text must be UTF-8, and props and context must not be "
            f"nested deeper than {PROPS_DEPTH_MAX} levels.",
        )


def decode_proto(events: Sequence[Any], origin: Origin, first: int = 0) -> Batch:
    """Events as nimbus.v1.Event messages, of which the first has the index `first`."""
    return decode(events, origin, _read, first)


def _read(first: int, events: Sequence[Any], origin: Origin) -> list[NewEvent]:
    # HasField costs as much as a value: it is asked only where an empty value leaves it open.
    encoded = [event.props_json for event in events]
    has_anonymous_ids = True in [event.HasField("anonymous_id") for event in events]
    context_forms = {event.WhichOneof("context_form") for event in events}
    return valid_events(
        first,
        [event.name for event in events],
        _tss(events),
        [event.user_id or ("" if event.HasField("user_id") else None) for event in events],
        [event.idempotency_key or ("" if event.HasField("idempotency_key") else None) for event in events],
        check_all_props_json(encoded) if all(encoded) else list(map(_props, events)),
        origin,
        anonymous_ids=[event.anonymous_id if event.HasField("anonymous_id") else None for event in events]
        if has_anonymous_ids
        else None,
        contexts=_contexts(events) if context_forms != {None} else None,
    )


def _tss(events: Sequence[Any]) -> list[int | None]:
    given = [event.ts for event in events]
    seconds = [ts.seconds for ts in given]
    nanos = [ts.nanos for ts in given]
    if all(seconds) and min(nanos) >= 0 and max(nanos) < SECOND * 1000:
        return [s * SECOND + n // 1000 for s, n in zip(seconds, nanos, strict=True)]
    return list(map(_ts, events))


def _ts(event: Any) -> int | None:
    ts = event.ts
    seconds: int = ts.seconds
    nanos: int = ts.nanos
    if not seconds and not event.HasField("ts"):
        return None
    if not 0 <= nanos < SECOND * 1000:
        raise EventRefusedError("ts", Reason.FIELD_INVALID, "ts must be a valid Timestamp.")
    return seconds * SECOND + nanos // 1000


def _props(event: Any) -> bytes:
    kind = event.WhichOneof("properties")
    if kind is None:
        return b"{}"
    return encode_props(struct_to_dict(event.props)) if kind == "props" else check_props_json(event.props_json)


def _contexts(events: Sequence[Any]) -> Sequence[bytes]:
    encoded = [event.context_json for event in events]
    return check_all_props_json(encoded, "context") if all(encoded) else list(map(_context, events))


def _context(event: Any) -> bytes:
    kind = event.WhichOneof("context_form")
    if kind is None:
        return b"{}"
    if kind == "context":
        return encode_props(struct_to_dict(event.context, "context"), "context")
    return check_props_json(event.context_json, "context")

"""Events that come as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nimbus_server import strict_json
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.ingest.decode import Batch, Origin, decode, valid_events
from nimbus_server.ingest.event import EventRefusedError, NewEvent
from nimbus_server.ingest.props import encode_all_props
from nimbus_server.strict_json import RepeatedKey
from nimbus_server.times import EXAMPLE, read_plain_utc, read_utc

REQUEST_FIELDS = {"project_id", "events", "sent_at", "return_receipts"}
EVENT_FIELDS = frozenset({"name", "ts", "props", "properties", "user_id", "idempotency_key", "anonymous_id", "context"})
TEXT_OR_NONE = frozenset({str, type(None)})


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """A request with its events still unread; `sent_at` in microseconds since 1970."""

    project_id: str
    events: list[Any]
    sent_at: int | None
    return_receipts: bool


def parse_json(body: bytes) -> JsonRequest:
    """The request in a JSON body.

    Raises NimbusError with REQUEST_UNPARSABLE, FIELD_INVALID or FIELD_UNKNOWN.
    """
    try:
        request = strict_json.loads(body)
    except ValueError as error:
        raise NimbusError(Reason.REQUEST_UNPARSABLE, f"The body is not valid JSON: {error}.") from None
    if not isinstance(request, dict):
        raise NimbusError(Reason.REQUEST_UNPARSABLE, "The body must be a JSON object with project_id and events.")
    if isinstance(request, RepeatedKey):
        raise field_error(Reason.FIELD_INVALID, request.key[:100], "A request must not have a field twice.")
    unknown = sorted(request.keys() - REQUEST_FIELDS)
    if unknown:
        fields = ", ".join(sorted(REQUEST_FIELDS))
        raise field_error(Reason.FIELD_UNKNOWN, unknown[0][:100], f"A request has no other fields than {fields}.")
    for field, kind, article in (
        ("project_id", str, "a string"),
        ("events", list, "an array"),
        ("sent_at", str, "a string"),
        ("return_receipts", bool, "true or false"),
    ):
        if not isinstance(request.get(field), kind | None):
            raise field_error(Reason.FIELD_INVALID, field, f"{field} must be {article}.")
    sent_at = request.get("sent_at")
    try:
        sent = None if sent_at is None else parse_ts("sent_at", sent_at)
    except EventRefusedError as error:
        raise field_error(error.reason, error.field, error.message) from None
    return JsonRequest(
        request.get("project_id") or "", request.get("events") or [], sent, request.get("return_receipts") or False
    )


def decode_json(events: Sequence[Any], origin: Origin, first: int = 0) -> Batch:
    """Events as parse_json gives them, of which the first has the index `first`."""
    return decode(events, origin, _read, first)


def parse_ts(field: str, text: str) -> int:
    """A time as read_utc gives it. Raises EventRefusedError with FIELD_INVALID."""
    try:
        return read_utc(text)
    except ValueError:
        raise EventRefusedError(
            field, Reason.FIELD_INVALID, f"{field} must be a time such as {EXAMPLE} (RFC 3339)."
        ) from None


def _read(first: int, events: Sequence[Any], origin: Origin) -> list[NewEvent]:
    given = check_fields(events, EVENT_FIELDS)
    names, tss, user_ids, keys = (texts_of(events, field) for field in ("name", "ts", "user_id", "idempotency_key"))
    props = list(map(props_of, events))
    return valid_events(
        first,
        [name or "" for name in names],
        read_plain_utc(tss) or [None if ts is None else parse_ts("ts", ts) for ts in tss],
        user_ids,
        keys,
        encode_all_props(props),
        origin,
        anonymous_ids=texts_of(events, "anonymous_id") if "anonymous_id" in given else None,
        contexts=contexts_of(events) if "context" in given else None,
    )


def check_fields(events: Sequence[Any], known: frozenset[str]) -> set[str]:
    """The fields that any of the events has.

    Raises EventRefusedError unless all are JSON objects without other fields than those known.
    """
    # All at once, which takes half the time of one by one.
    if not {dict}.issuperset(map(type, events)):
        raise _no_event(next(event for event in events if type(event) is not dict))
    given: set[str] = set().union(*events)
    if not given <= known:
        raise EventRefusedError(
            min(given - known)[:100],
            Reason.FIELD_UNKNOWN,
            "An event has no such field: put what you know about it into props.",
        )
    return given


def texts_of(events: Sequence[dict[str, Any]], field: str) -> list[str | None]:
    """What the events have in a field. Raises EventRefusedError where it is not text."""
    values = [event.get(field) for event in events]
    if not TEXT_OR_NONE.issuperset(map(type, values)):
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must be a string.")
    return values


def props_of(event: dict[str, Any]) -> dict[str, Any] | None:
    """The properties of an event, whichever of their names they have. Raises EventRefusedError."""
    props = event.get("props")
    if "properties" in event and event["properties"] is not None:
        if props is not None:
            raise EventRefusedError("properties", Reason.FIELD_INVALID, "Give props or properties, not both.")
        props = event["properties"]
    if props is not None and not isinstance(props, dict):
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must be a JSON object.")
    return props


def contexts_of(events: Sequence[dict[str, Any]]) -> list[bytes]:
    """The contexts of the events as encode_props gives them. Raises EventRefusedError."""
    contexts = [event.get("context") for event in events]
    if not all(context is None or isinstance(context, dict) for context in contexts):
        raise EventRefusedError("context", Reason.FIELD_INVALID, "context must be a JSON object.")
    return encode_all_props(contexts, "context")


def _no_event(value: Any) -> EventRefusedError:
    if isinstance(value, RepeatedKey):
        return EventRefusedError(value.key[:100], Reason.FIELD_INVALID, "An event must not have a field twice.")
    return EventRefusedError("events", Reason.FIELD_INVALID, "An event must be a JSON object.")

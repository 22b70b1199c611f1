"""From what a client sent, as protobuf or JSON, to valid events and refusals by index."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.ingest import identity
from nimbus_server.ingest.event import (
    EVENTS_MAX,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    NAME_LENGTH_MAX,
    TS_AHEAD_MAX,
    TS_MIN,
    USER_ID_LENGTH_MAX,
    EventRefusedError,
    NewEvent,
    Refusal,
)
from nimbus_server.ingest.props import encode_props, parse_props, struct_to_dict

REQUEST_FIELDS = {"project_id", "events"}
EVENT_FIELDS = {"name", "ts", "props", "properties", "user_id", "idempotency_key"}


@dataclass(frozen=True, slots=True)
class Origin:
    """When and by what right a request came.

    `default_ts` is the ts of events without one: the signature's time, or that of arrival. `signature` is None where
    the request is not signed.
    """

    received_at: datetime
    default_ts: datetime
    signature: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a request that can be stored, and those that can't."""

    events: list[NewEvent]
    refusals: list[Refusal]


@dataclass(slots=True)
class _Fields:
    """An event's fields with the right types and nothing else checked; `props` None for none."""

    name: str
    ts: datetime | None
    user_id: str | None
    idempotency_key: str | None
    props: dict[str, Any] | None


def parse_json(body: bytes) -> tuple[str, list[Any]]:
    """The project id and the still unread events in a JSON body.

    Raises NimbusError with REQUEST_UNPARSABLE, FIELD_REQUIRED, FIELD_INVALID or FIELD_UNKNOWN.
    """
    request = _loads(body)
    if not isinstance(request, dict):
        raise NimbusError(Reason.REQUEST_UNPARSABLE, "The body must be a JSON object with project_id and events.")
    unknown = sorted(request.keys() - REQUEST_FIELDS)
    if unknown:
        raise field_error(
            Reason.FIELD_UNKNOWN, unknown[0][:100], "A request has the fields project_id and events only."
        )
    project_id, events = request.get("project_id"), request.get("events")
    if not isinstance(project_id, str | None):
        raise field_error(Reason.FIELD_INVALID, "project_id", "project_id must be a string.")
    if not isinstance(events, list | None):
        raise field_error(Reason.FIELD_INVALID, "events", "events must be an array.")
    return project_id or "", events or []


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # It refuses a whole body for one lone surrogate, which JavaScript makes of a cut emoji, or one NaN, which
        # Python writes. The slower parser lets them through, to be refused with their event alone.
        try:
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            raise NimbusError(Reason.REQUEST_UNPARSABLE, f"The body is not valid JSON: {error.msg}.") from None


def decode_json(events: Sequence[Any], origin: Origin) -> Batch:
    """Events as parse_json gives them. Raises what check_count does."""
    return _decode(events, origin, _json_fields)


def decode_proto(events: Sequence[Any], origin: Origin) -> Batch:
    """Events as nimbus.v1.Event messages. Raises what check_count does."""
    return _decode(events, origin, _proto_fields)


def check_count(count: int) -> None:
    """Raise NimbusError with BATCH_EMPTY or BATCH_TOO_LARGE unless a request may have so many events."""
    if count == 0:
        raise field_error(Reason.BATCH_EMPTY, "events", "events must hold at least one event.")
    if count > EVENTS_MAX:
        raise field_error(Reason.BATCH_TOO_LARGE, "events", f"events may hold at most {EVENTS_MAX} events.")


def _decode(events: Sequence[Any], origin: Origin, read: Callable[[Any], _Fields]) -> Batch:
    check_count(len(events))
    valid, refusals = [], []
    for index, event in enumerate(events):
        try:
            valid.append(_validate(read(event), index, origin))
        except EventRefusedError as error:
            refusals.append(Refusal(index, error.field, error.reason, error.message))
    return Batch(valid, refusals)


def _validate(fields: _Fields, index: int, origin: Origin) -> NewEvent:
    if not fields.name:
        raise EventRefusedError("name", Reason.FIELD_REQUIRED, "name is required.")
    _check_text("name", fields.name, NAME_LENGTH_MAX)
    _check_text("user_id", fields.user_id, USER_ID_LENGTH_MAX)
    _check_text("idempotency_key", fields.idempotency_key, IDEMPOTENCY_KEY_LENGTH_MAX)
    if fields.ts is not None and not TS_MIN <= fields.ts <= origin.received_at + TS_AHEAD_MAX:
        raise EventRefusedError(
            "ts", Reason.TS_OUT_OF_RANGE, "ts must lie between the year 2000 and 24 hours from now."
        )
    return NewEvent(
        id=_identity(fields, index, origin),
        ts=fields.ts or origin.default_ts,
        ts_is_default=fields.ts is None,
        name=fields.name,
        user_id=fields.user_id,
        idempotency_key=fields.idempotency_key,
        props=encode_props(fields.props) if fields.props else b"{}",
    )


def _identity(fields: _Fields, index: int, origin: Origin) -> UUID:
    if fields.idempotency_key is not None:
        return identity.keyed(fields.name, fields.user_id, fields.idempotency_key)
    if origin.signature is not None:
        return identity.signed(origin.signature, index)
    return identity.fresh(origin.received_at)


def _check_text(field: str, value: str | None, length_max: int) -> None:
    if value is None:
        return
    if not value:
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not be empty: leave it out instead.")
    if len(value) > length_max:
        raise EventRefusedError(field, Reason.FIELD_TOO_LONG, f"{field} must have at most {length_max} characters.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not contain NUL or half a character.")


def _proto_fields(event: Any) -> _Fields:
    kind = event.WhichOneof("properties")
    props: dict[str, Any] | None = None
    if kind == "props_json":
        props = parse_props(event.props_json)
    elif kind == "props":
        props = struct_to_dict(event.props)
    ts = None
    if event.HasField("ts"):
        try:
            ts = event.ts.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise EventRefusedError("ts", Reason.FIELD_INVALID, "ts must be a valid Timestamp.") from None
    return _Fields(
        name=event.name,
        ts=ts,
        user_id=event.user_id if event.HasField("user_id") else None,
        idempotency_key=event.idempotency_key if event.HasField("idempotency_key") else None,
        props=props,
    )


def _json_fields(event: Any) -> _Fields:
    if not isinstance(event, dict):
        raise EventRefusedError("events", Reason.FIELD_INVALID, "An event must be a JSON object.")
    unknown = sorted(event.keys() - EVENT_FIELDS)
    if unknown:
        raise EventRefusedError(
            unknown[0][:100], Reason.FIELD_UNKNOWN, "An event has no such field: put what you know about it into props."
        )
    if event.get("props") is not None and event.get("properties") is not None:
        raise EventRefusedError("properties", Reason.FIELD_INVALID, "Give props or properties, not both.")
    for field in ("name", "ts", "user_id", "idempotency_key"):
        if not isinstance(event.get(field), str | None):
            raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must be a string.")
    props = event.get("props")
    if props is None:
        props = event.get("properties")
    if not isinstance(props, dict | None):
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must be a JSON object.")
    ts = event.get("ts")
    return _Fields(
        name=event.get("name") or "",
        ts=_parse_ts(ts) if ts is not None else None,
        user_id=event.get("user_id"),
        idempotency_key=event.get("idempotency_key"),
        props=props,
    )


def _parse_ts(text: str) -> datetime:
    """RFC 3339, to the microsecond; without an offset it is UTC."""
    try:
        if len(text) < len("2025-11-01T12:00:00") or text[10] not in "Tt ":
            raise ValueError(text)
        ts = datetime.fromisoformat(text.replace("z", "Z"))
        return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)
    except (ValueError, OverflowError):
        raise EventRefusedError(
            "ts", Reason.FIELD_INVALID, "ts must be a time such as 2025-11-01T12:00:00Z (RFC 3339)."
        ) from None

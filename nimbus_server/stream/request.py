"""What stream a request asks for: over gRPC, as server-sent events, or in the address of a WebSocket."""

from datetime import UTC, datetime
from urllib.parse import unquote

from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1 import stream_service_pb2 as pb
from nimbus.v1.access_pb2 import Access
from nimbus_server.errors import Reason, field_error
from nimbus_server.ingest.event import ANONYMOUS_ID_LENGTH_MAX, NAME_LENGTH_MAX, USER_ID_LENGTH_MAX
from nimbus_server.rpc.fields import filter_field, int_field, props_field, text_field, time_field, uuid_field
from nimbus_server.rpc.query import merge_query, parse_query
from nimbus_server.rpc.registry import Rpc
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Start
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Form, Shape
from nimbus_server.stream.proto_form import JSON_PROPS, STRUCT_PROPS
from nimbus_server.stream.streams import Named, Wanted

HEARTBEAT_SECONDS = 15
CONSUMER_LENGTH_MAX = 200
SEQ_MAX = 2**63 - 1

EARLIEST = Start(after_seq=0)
LATEST = Start()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# To open a WebSocket is no RPC, but is asked for and admitted like one.
OPEN_SOCKET = Rpc("WebSocket", Access.ACCESS_STREAM, pb.StreamEventsRequest)


def subscription_wanted(request: pb.SubscribeEventsRequest) -> Wanted:
    """Raises NimbusError with FIELD_INVALID, FIELD_REQUIRED or FIELD_TOO_LONG, as do all of these."""
    take_over = request.consumer_conflict == pb.CONSUMER_CONFLICT_TAKE_OVER
    return Wanted(
        project_id=uuid_field("project_id", request.project_id),
        start=_subscription_start(request),
        shape=Shape(
            JSON_PROPS if request.props_form == pb.PROPS_FORM_JSON else STRUCT_PROPS,
            _filter(request),
            int_field("batch_events_max", request.batch_events_max or BATCH_EVENTS_MAX, 1, BATCH_EVENTS_MAX),
        ),
        heartbeat_seconds=_heartbeat_seconds(request.heartbeat_seconds),
        consumer=_named(request.consumer, take_over=take_over) if request.consumer else None,
    )


def stream_wanted(request: pb.StreamEventsRequest, form: Form, last_event_id: str = "") -> Wanted:
    """As above, for what goes out in a form of JSON."""
    return Wanted(
        project_id=uuid_field("project_id", request.project_id),
        start=_stream_start(request, last_event_id),
        shape=Shape(form, _filter(request)),
        heartbeat_seconds=_heartbeat_seconds(request.heartbeat_seconds),
    )


def project_of(target: str) -> str:
    """The project that a WebSocket is opened for, in whatever way its path is percent-encoded; "" for another route."""
    segments = [unquote(segment) for segment in target.partition("?")[0].split("/")]
    return segments[3] if segments[:3] == ["", "ws", "projects"] and len(segments) == 4 else ""


def read_query(project_id: str, query: str) -> tuple[pb.StreamEventsRequest, Named | None]:
    """A request from the query of an address: the fields of StreamEventsRequest, `consumer` and `consumer_conflict`.

    Raises what parse_query, merge_query and text_field do.
    """
    given = parse_query(query)
    request = pb.StreamEventsRequest(project_id=project_id)
    consumer, conflict = _only(given, "consumer"), _only(given, "consumer_conflict")
    if conflict not in {None, "refuse", "take_over"}:
        raise field_error(Reason.FIELD_INVALID, "consumer_conflict", "consumer_conflict must be refuse or take_over.")
    merge_query(request, given)
    return request, None if consumer is None else _named(consumer, take_over=conflict == "take_over")


def _only(given: dict[str, list[str]], name: str) -> str | None:
    values = given.pop(name, [])
    if len(values) > 1:
        raise field_error(Reason.FIELD_INVALID, name, f"{name} may be given once.")
    return values[0] if values else None


def _subscription_start(request: pb.SubscribeEventsRequest) -> Start:
    chosen = request.WhichOneof("start")
    if chosen == "after_seq":
        return _after_seq(request.after_seq)
    if chosen == "since":
        return _since(request.since)
    return EARLIEST if request.start_point == pb.START_POINT_EARLIEST else LATEST


def _stream_start(request: pb.StreamEventsRequest, last_event_id: str) -> Start:
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 19):
            raise field_error(
                Reason.FIELD_INVALID, "last-event-id", "last-event-id must be the id of a message of this stream."
            )
        return Start(after_seq=int(last_event_id))
    given = [bool(request.start), request.HasField("after_seq"), request.HasField("since")]
    if sum(given) > 1:
        raise field_error(Reason.FIELD_INVALID, "start", "start, after_seq and since do not go together.")
    if request.start not in {"", "latest", "earliest"}:
        raise field_error(Reason.FIELD_INVALID, "start", "start must be latest or earliest.")
    if request.HasField("after_seq"):
        return _after_seq(request.after_seq)
    if request.HasField("since"):
        return _since(request.since)
    return EARLIEST if request.start == "earliest" else LATEST


def _after_seq(position: int) -> Start:
    return Start(after_seq=int_field("after_seq", position, 0, SEQ_MAX))


def _since(at: Timestamp) -> Start:
    # Nothing was received before there were computers; and it is looked for a little earlier, which year 1 has not.
    return Start(since=max(time_field("since", at), EPOCH))


def _filter(request: pb.SubscribeEventsRequest | pb.StreamEventsRequest) -> EventFilter:
    return EventFilter(
        names=frozenset(filter_field("name", request.name, NAME_LENGTH_MAX)),
        user_id=text_field("user_id", request.user_id, USER_ID_LENGTH_MAX, may_be_blank=True)
        if request.HasField("user_id")
        else None,
        props_json=props_field("props", request.props),
        anonymous_id=text_field("anonymous_id", request.anonymous_id, ANONYMOUS_ID_LENGTH_MAX, may_be_blank=True)
        if request.HasField("anonymous_id")
        else None,
        context_json=props_field("context", request.context),
    )


def _heartbeat_seconds(seconds: int) -> int:
    return int_field("heartbeat_seconds", seconds or HEARTBEAT_SECONDS, 1, HEARTBEAT_SECONDS)


def consumer_field(name: str) -> str:
    """The name of a consumer.

    In a path `.` and `..` are no names, but lead elsewhere: to delete the consumer `..` would delete its project.
    """
    if name in {".", ".."}:
        raise field_error(Reason.FIELD_INVALID, "consumer", "consumer must not be . or .., which mean something else.")
    return text_field("consumer", name, CONSUMER_LENGTH_MAX)


def _named(consumer: str, *, take_over: bool) -> Named:
    return Named(consumer_field(consumer), take_over=take_over)

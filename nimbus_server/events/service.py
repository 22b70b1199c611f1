"""EventService: the log over gRPC."""

import asyncio
from collections.abc import Iterable
from uuid import UUID

from nimbus.v1 import event_service_pb2 as pb
from nimbus_server.accounts.caller import caller
from nimbus_server.errors import Reason, field_error
from nimbus_server.events.store import Cursor, EventFilter, EventReader, LoggedEvent
from nimbus_server.ingest.event import ANONYMOUS_ID_LENGTH_MAX, NAME_LENGTH_MAX, USER_ID_LENGTH_MAX
from nimbus_server.ingest.service import IngestService
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.call import current_call
from nimbus_server.rpc.fields import (
    filter_field,
    int_field,
    props_field,
    struct,
    text_field,
    time_field,
    timestamp,
    uuid_field,
)

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
OFFSET_MAX = 10_000
# Of the events of a page: less than the 4 MiB that gRPC clients take by default, and than the edge takes for JSON.
GRPC_PAGE_BYTES_MAX = 3_500_000
REST_PAGE_BYTES_MAX = 16 * 1024 * 1024


class EventService:
    """Implements nimbus.v1.EventService. Errors are those that the proto names for each RPC."""

    def __init__(self, access: ProjectAccess, ingest: IngestService, reader: EventReader) -> None:
        self._access = access
        self._reader = reader
        self.IngestEvents = ingest.IngestEvents
        self.IngestEventStream = ingest.IngestEventStream

    async def ListEvents(self, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        project = uuid_field("project_id", request.project_id)
        await self._access.require(caller(), project)
        which = _filter(project, request)
        limit = int_field("limit", request.limit if request.HasField("limit") else LIMIT_DEFAULT, 1, LIMIT_MAX)
        offset = int_field("offset", request.offset, 0, OFFSET_MAX)
        after = _cursor(request)
        bytes_max = REST_PAGE_BYTES_MAX if current_call.get().is_rest else GRPC_PAGE_BYTES_MAX
        # One more than asked for tells whether another page follows.
        found = await self._reader.page(which, limit + 1, offset, after, bytes_max)
        items = await asyncio.to_thread(_messages, found[:limit], bytes_max)
        response = pb.ListEventsResponse(items=items)
        if len(found) > len(items):
            last = found[len(items) - 1]
            response.next_cursor.after_ts.FromDatetime(last.ts)
            response.next_cursor.after_id = str(last.id)
        if after is None:
            response.count = await self._reader.count(which)
            response.limit, response.offset = limit, offset
        return response


def _filter(project: UUID, request: pb.ListEventsRequest) -> EventFilter:
    return EventFilter(
        project_id=project,
        names=filter_field("name", request.name, NAME_LENGTH_MAX),
        user_id=text_field("user_id", request.user_id, USER_ID_LENGTH_MAX, may_be_blank=True)
        if request.HasField("user_id")
        else None,
        since=time_field("since", request.since) if request.HasField("since") else None,
        until=time_field("until", request.until) if request.HasField("until") else None,
        props_json=props_field("props", request.props),
        anonymous_id=text_field("anonymous_id", request.anonymous_id, ANONYMOUS_ID_LENGTH_MAX, may_be_blank=True)
        if request.HasField("anonymous_id")
        else None,
        context_json=props_field("context", request.context),
    )


def _cursor(request: pb.ListEventsRequest) -> Cursor | None:
    if not request.HasField("after_ts") and not request.after_id:
        return None
    if not request.HasField("after_ts") or not request.after_id:
        missing = "after_id" if request.HasField("after_ts") else "after_ts"
        raise field_error(Reason.FIELD_REQUIRED, missing, "after_ts and after_id go together.")
    if request.HasField("offset"):
        raise field_error(
            Reason.FIELD_INVALID, "offset", "offset does not go with after_ts and after_id: use one or the other."
        )
    return Cursor(time_field("after_ts", request.after_ts), uuid_field("after_id", request.after_id))


def _messages(events: Iterable[LoggedEvent], bytes_max: int) -> list[pb.StoredEvent]:
    """The first events, as many as have `bytes_max` together, as messages and as JSON, but at least one."""
    messages: list[pb.StoredEvent] = []
    size = characters = 0
    for event in events:
        if characters >= bytes_max:
            break
        message = _message(event)
        size += message.ByteSize()
        characters += event.json_characters
        if messages and size > bytes_max:
            break
        messages.append(message)
    return messages


def _message(event: LoggedEvent) -> pb.StoredEvent:
    return pb.StoredEvent(
        id=str(event.id),
        project_id=str(event.project_id),
        seq=event.seq,
        name=event.name,
        ts=timestamp(event.ts),
        props=struct(event.props),
        user_id=event.user_id,
        idempotency_key=event.idempotency_key,
        received_at=timestamp(event.received_at),
        anonymous_id=event.anonymous_id,
        context=struct(event.context),
    )

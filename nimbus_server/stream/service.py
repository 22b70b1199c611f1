"""StreamService: the log as it grows, over gRPC and as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import orjson
from google.api.httpbody_pb2 import HttpBody

from nimbus.v1 import stream_service_pb2 as pb
from nimbus_server.accounts.caller import Machine, caller
from nimbus_server.accounts.tokens import StreamClaims, Tokens
from nimbus_server.clock import Clock
from nimbus_server.consumers.store import Consumer, ConsumerStore
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.call import current_call
from nimbus_server.rpc.fields import int_field, timestamp, uuid_field
from nimbus_server.rpc.status import error_json
from nimbus_server.stream.json_form import SSE
from nimbus_server.stream.request import SEQ_MAX, consumer_field, stream_wanted, subscription_wanted
from nimbus_server.stream.streams import Streams

# Browsers would wait for three seconds and more before they come back.
RECONNECT = b"retry: 1000\n"
TOKEN_SECONDS = 600
TOKEN_SECONDS_MAX = 3600


class StreamService:
    """Implements nimbus.v1.StreamService. Errors are those that the proto names for each RPC."""

    def __init__(
        self, access: ProjectAccess, streams: Streams, consumers: ConsumerStore, tokens: Tokens, clock: Clock
    ) -> None:
        self._access = access
        self._streams = streams
        self._consumers = consumers
        self._tokens = tokens
        self._clock = clock

    async def SubscribeEvents(self, request: pb.SubscribeEventsRequest) -> AsyncGenerator[bytes, None]:
        wanted = subscription_wanted(request)
        await self._access.require(caller(), wanted.project_id)
        async with self._streams.open(wanted, caller()) as subscription:
            subscription.on_cut_off = current_call.get().cut_off
            async with aclosing(subscription.messages()) as messages:
                async for message in messages:
                    yield message

    async def StreamEvents(self, request: pb.StreamEventsRequest) -> AsyncGenerator[bytes, None]:
        wanted = stream_wanted(request, SSE, current_call.get().metadata.get("last-event-id", ""))
        await self._access.require(caller(), wanted.project_id)
        begun = False
        try:
            async with self._streams.open(wanted, caller()) as subscription:
                if current_call.get().rest_method == "HEAD":
                    # The headers of the stream; nobody reads what would follow.
                    yield _http_body(RECONNECT)
                    return
                subscription.on_cut_off = current_call.get().cut_off
                async with aclosing(subscription.messages()) as messages:
                    async for message in messages:
                        yield _http_body(message if begun else RECONNECT + message)
                        begun = True
        except NimbusError as error:
            if not begun:
                raise
            # Too late for a status: the client gets its reason as the last message. One that is sent away for a
            # while comes back by itself.
            if error.reason is not Reason.WORKER_UNAVAILABLE:
                yield _http_body(b"event: error\ndata: " + orjson.dumps(error_json(error)) + b"\n\n")

    async def CreateStreamToken(self, request: pb.CreateStreamTokenRequest) -> pb.CreateStreamTokenResponse:
        project = uuid_field("project_id", request.project_id)
        seconds = int_field("ttl_seconds", request.ttl_seconds or TOKEN_SECONDS, 1, TOKEN_SECONDS_MAX)
        who = caller()
        await self._access.require(who, project)
        claims = (
            StreamClaims(project, None, None, who.key_id)
            if isinstance(who, Machine)
            else StreamClaims(project, who.user_id, who.session_id, None)
        )
        token = self._tokens.issue_stream(claims, seconds)
        return pb.CreateStreamTokenResponse(
            token=token, expires_at=timestamp(self._clock() + timedelta(seconds=seconds))
        )

    async def AckPosition(self, request: pb.AckPositionRequest) -> pb.Consumer:
        project = uuid_field("project_id", request.project_id)
        name = consumer_field(request.consumer)
        position = int_field("position", request.position, 0, SEQ_MAX)
        await self._access.require(caller(), project)
        return _consumer(await self._consumers.ack(project, name, position, rewind=request.rewind))

    async def ListConsumers(self, request: pb.ListConsumersRequest) -> pb.ListConsumersResponse:
        project = uuid_field("project_id", request.project_id)
        await self._access.require(caller(), project)
        return pb.ListConsumersResponse(items=map(_consumer, await self._consumers.of_project(project)))

    async def DeleteConsumer(self, request: pb.DeleteConsumerRequest) -> pb.DeleteConsumerResponse:
        project = uuid_field("project_id", request.project_id)
        name = consumer_field(request.consumer)
        await self._access.require(caller(), project)
        await self._consumers.delete(project, name)
        return pb.DeleteConsumerResponse()


def _consumer(consumer: Consumer) -> pb.Consumer:
    return pb.Consumer(
        name=consumer.name,
        position=consumer.position,
        lag=consumer.lag,
        active=consumer.active,
        acked_at=timestamp(consumer.acked_at),
    )


def _http_body(data: bytes) -> bytes:
    body: bytes = HttpBody(content_type="text/event-stream", data=data).SerializeToString()
    return body

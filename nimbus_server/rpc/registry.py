"""The RPCs of a service, as its proto declares them."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from nimbus.v1 import access_pb2
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.call import Context
from nimbus_server.rpc.json_body import JSON_BODY

# 1,000 events of 10 KB of props, and what goes with them.
BATCH_BYTES_MAX = 16 * 1024 * 1024
REQUEST_BYTES_MAX = 128 * 1024

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Unread:
    """A request that carries events, as it came: parsed it is many times as large, so its handler chooses when.

    `parse` makes a message of bytes such as `raw`. It raises NimbusError with REQUEST_UNPARSABLE.
    """

    raw: bytes
    parse: Callable[[bytes], Any]


@dataclass(frozen=True)
class Rpc:
    """One RPC: `name` is its full name as on the wire (`/nimbus.v1.EventService/IngestEvents`).

    `takes_stream` says that its requests are streamed, and `gives_stream` that its responses are.
    """

    name: str
    access: int
    request_class: type[Message]
    takes_stream: bool = False
    gives_stream: bool = False

    @cached_property
    def is_ingest(self) -> bool:
        """Whether a request carries events to store."""
        return "events" in self.request_class.DESCRIPTOR.fields_by_name

    @cached_property
    def request_bytes_max(self) -> int:
        """Most bytes that a request may have: a full batch where it carries events, a page of text everywhere else."""
        return BATCH_BYTES_MAX if self.is_ingest else REQUEST_BYTES_MAX

    def parse(self, raw: bytes) -> Message:
        """The request in `raw`. Raises NimbusError with REQUEST_UNPARSABLE."""
        try:
            return self.request_class.FromString(raw)
        except DecodeError:
            name = self.request_class.DESCRIPTOR.full_name
            raise NimbusError(Reason.REQUEST_UNPARSABLE, f"The request is not a valid {name} message.") from None

    @cached_property
    def has_json_body(self) -> bool:
        """Whether its fields come as the JSON in `json_body` over REST."""
        return JSON_BODY in self.request_class.DESCRIPTOR.fields_by_name


def rpcs_of(service: ServiceDescriptor) -> dict[str, Rpc]:
    """The RPCs of a service by full name.

    Raises ValueError for one whose proto does not say who may call it.
    """
    found = {}
    for method in service.methods:
        access = method.GetOptions().Extensions[access_pb2.access]
        if access == access_pb2.ACCESS_UNSPECIFIED:
            raise ValueError(f"{method.full_name} has no (nimbus.v1.access) option")
        rpc = Rpc(
            _wire_name(method),
            access,
            GetMessageClass(method.input_type),
            method.client_streaming,
            method.server_streaming,
        )
        found[rpc.name] = rpc
    return found


def handlers_of(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Handlers that call the servicer's method of each RPC's name with the parsed request, or an Unread one.

    There is no deserializer: the interceptors get the bytes on the wire, check the signature over them and parse.
    """
    handlers: dict[str, Handler] = {}
    for method in service.methods:
        implementation = getattr(servicer, method.name)
        handler: Handler
        if method.client_streaming:
            handler = grpc.stream_stream_rpc_method_handler(_stream(implementation), None, _encoded)
        elif method.server_streaming:
            # What many subscribers get is encoded once, so these give bytes.
            handler = grpc.unary_stream_rpc_method_handler(_stream(implementation), None, None)
        else:
            handler = grpc.unary_unary_rpc_method_handler(_call(implementation), None, _encoded)
        handlers[method.name] = handler
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _encoded(response: Message | bytes) -> bytes:
    """A response on the wire; one that came from another process has its form already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _call(method: Callable[[Any], Awaitable[Message | bytes]]) -> Callable[[Any, Context], Awaitable[Message | bytes]]:
    async def handle(request: Any, _context: Context) -> Message | bytes:
        return await method(request)

    return handle


def _stream(method: Callable[[Any], AsyncGenerator[Any, None]]) -> Callable[[Any, Context], AsyncGenerator[Any, None]]:
    def handle(request: Any, _context: Context) -> AsyncGenerator[Any, None]:
        return method(request)

    return handle


def _wire_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"

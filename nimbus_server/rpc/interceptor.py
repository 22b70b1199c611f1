"""What the interceptors of a server have in common: each wraps the methods of all RPCs."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc.aio import ServerInterceptor

from nimbus_server.rpc.registry import Handler, Rpc

# What an interceptor asks for the handler that it wraps; None where nobody serves the RPC.
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class RpcInterceptor(ServerInterceptor):
    """Calls its own wrapper in place of an RPC's method."""

    def __init__(self, rpcs: Mapping[str, Rpc]) -> None:
        self._rpcs = rpcs

    @abstractmethod
    def wrapper(self, rpc: Rpc) -> Callable[..., Any]:
        """What is called with the RPC, its method, the request or the stream of them, and the context of the call."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """See the class."""
        handler = await continuation(handler_call_details)
        rpc = self._rpcs.get(handler_call_details.method)
        if handler is None or rpc is None:
            return handler
        method = handler.unary_unary or handler.unary_stream or handler.stream_stream
        wrapped = partial(self.wrapper(rpc), rpc, method)
        if not rpc.gives_stream:
            kind = grpc.unary_unary_rpc_method_handler
        elif rpc.takes_stream:
            kind = grpc.stream_stream_rpc_method_handler
        else:
            kind = grpc.unary_stream_rpc_method_handler
        return kind(wrapped, handler.request_deserializer, handler.response_serializer)

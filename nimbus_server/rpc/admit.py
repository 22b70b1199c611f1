"""What a call meets second: is there room for it, who calls, and its request parsed."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from grpc_interceptor.server import AsyncServerInterceptor

from nimbus.v1.access_pb2 import Access
from nimbus_server.accounts.caller import Caller, Machine, current_caller
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.admission import Admission
from nimbus_server.rpc.call import Call, Context, current_call
from nimbus_server.rpc.door import Door
from nimbus_server.rpc.json_body import read_json_body
from nimbus_server.rpc.query import merge_query, parse_query
from nimbus_server.rpc.registry import Rpc, Unread


class AdmitInterceptor(AsyncServerInterceptor):
    """Finds room for the request and out who calls, as the RPC's access option asks, and parses it.

    Requests arrive as the bytes on the wire, because those are what a gRPC client signed.
    """

    def __init__(self, rpcs: Mapping[str, Rpc], admission: Admission) -> None:
        self._rpcs = rpcs
        self._admission = admission
        self._door = Door()

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Context, method_name: str
    ) -> Any:
        """See the class."""
        rpc = self._rpcs.get(method_name)
        if rpc is None:
            return await super().intercept(method, request_or_iterator, context, method_name)
        call = current_call.get()
        if rpc.takes_stream:
            return method(self._admit_stream(rpc, call, request_or_iterator), context)
        raw: bytes = request_or_iterator
        _check_size(rpc, raw)
        self._door.enter(len(raw))
        try:
            request = await self._admit(rpc, call, raw)
            if not rpc.gives_stream:
                return await method(request, context)
        finally:
            self._door.leave(len(raw))
        return method(request, context)

    async def _admit(self, rpc: Rpc, call: Call, raw: bytes) -> Message | Unread:
        # A stranger's message is not parsed. Over REST the signature is over the body inside of the message, and all
        # that a client can put there are bytes. A token that opens streams is a field of it.
        request = rpc.parse(raw) if call.is_rest or rpc.access == Access.ACCESS_STREAM else None
        if request is not None and call.query_is_ours:
            merge_query(request, parse_query((call.rest_path or "").partition("?")[2]))
        if rpc.access != Access.ACCESS_PUBLIC:
            current_caller.set(await self._admission.admit(rpc, call, raw, request))
        if rpc.is_ingest:
            return Unread(raw, rpc.parse)
        if request is None:
            request = rpc.parse(raw)
        if rpc.has_json_body:
            read_json_body(request, call.rest_path)
        return request

    async def _admit_stream(self, rpc: Rpc, call: Call, raws: AsyncIterator[bytes]) -> AsyncGenerator[Unread, None]:
        """The messages of a stream; its credentials hold for the first, and those of a person are asked for again.

        They wait where a single request would be refused for load: nothing more is read from the stream meanwhile.
        """
        who: Caller | None = None
        async for raw in raws:
            _check_size(rpc, raw)
            await self._door.enter_in_time(len(raw))
            try:
                if not isinstance(who, Machine):
                    who = await self._admission.admit(rpc, call, raw, None)
                    current_caller.set(who)
                yield Unread(raw, rpc.parse)
            finally:
                self._door.leave(len(raw))


def _check_size(rpc: Rpc, raw: bytes) -> None:
    if len(raw) > rpc.request_bytes_max:
        raise NimbusError(
            Reason.REQUEST_UNPARSABLE, f"A request of this call has at most {rpc.request_bytes_max} bytes."
        )

"""What a call meets second: is there room for it, who calls, and its request parsed."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message
from grpc.aio import EOF

from nimbus.v1.access_pb2 import Access
from nimbus_server.accounts.caller import Caller, Machine, current_caller
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.admission import Admission
from nimbus_server.rpc.call import Call, Context, current_call
from nimbus_server.rpc.door import Door
from nimbus_server.rpc.interceptor import RpcInterceptor
from nimbus_server.rpc.json_body import read_json_body
from nimbus_server.rpc.query import merge_query, parse_query
from nimbus_server.rpc.registry import Rpc, Unread


class AdmitInterceptor(RpcInterceptor):
    """Finds room for the request and out who calls, as the RPC's access option asks, and parses it.

    Requests arrive as the bytes on the wire, because those are what a gRPC client signed.
    """

    def __init__(self, rpcs: Mapping[str, Rpc], admission: Admission) -> None:
        super().__init__(rpcs)
        self._admission = admission
        self._door = Door()

    def wrapper(self, rpc: Rpc) -> Callable[..., Any]:
        """See the class."""
        return self._batches if rpc.takes_stream else self._stream if rpc.gives_stream else self._answer

    async def _answer(self, rpc: Rpc, method: Callable[..., Any], raw: bytes, context: Context) -> Any:
        _check_size(rpc, raw)
        self._door.enter(len(raw))
        try:
            return await method(await self._admit(rpc, current_call.get(), raw), context)
        finally:
            self._door.leave(len(raw))

    async def _stream(
        self, rpc: Rpc, method: Callable[..., Any], raw: bytes, context: Context
    ) -> AsyncGenerator[Any, None]:
        _check_size(rpc, raw)
        self._door.enter(len(raw))
        try:
            request = await self._admit(rpc, current_call.get(), raw)
        finally:
            self._door.leave(len(raw))
        async with aclosing(method(request, context)) as responses:
            async for response in responses:
                yield response

    def _batches(
        self, rpc: Rpc, method: Callable[..., Any], _raws: object, context: Context
    ) -> AsyncGenerator[Any, None]:
        # Whoever iterates over the requests closes them.
        responses: AsyncGenerator[Any, None] = method(self._admit_each(rpc, current_call.get(), context), context)
        return responses

    async def _admit(self, rpc: Rpc, call: Call, raw: bytes) -> Message | Unread:
        # A stranger's message is not parsed. Over REST the signature is over the body inside of the message, and all
        # that a client can put there are bytes. A token that opens streams is a field of it.
        request = rpc.parse(raw) if call.is_rest or rpc.access == Access.ACCESS_STREAM else None
        if request is not None and call.rest_query and not (rpc.is_ingest or rpc.has_json_body):
            merge_query(request, parse_query(call.rest_query))
        if rpc.access != Access.ACCESS_PUBLIC:
            current_caller.set(await self._admission.admit(rpc, call, raw, request))
        if rpc.is_ingest:
            return Unread(raw, rpc.parse)
        if request is None:
            request = rpc.parse(raw)
        if rpc.has_json_body:
            read_json_body(request, call.rest_path)
        return request

    async def _admit_each(self, rpc: Rpc, call: Call, context: Context) -> AsyncGenerator[Unread, None]:
        """The messages of a stream; its credentials hold for the first, and those of a person are asked for again.

        They wait where a single request would be refused for load: nothing more is read from the stream meanwhile.
        """
        who: Caller | None = None
        while (raw := await context.read()) is not EOF:
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

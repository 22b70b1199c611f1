"""The chain that every call goes through: observe (request id, log, errors), then admit (parse, authenticate)."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

import structlog
from google.protobuf.message import Message
from grpc.aio import AbortError
from grpc_interceptor.server import AsyncServerInterceptor

from nimbus.v1.access_pb2 import Access
from nimbus_server.accounts.authenticator import Authenticator
from nimbus_server.accounts.caller import Caller, Machine, current_caller
from nimbus_server.accounts.signatures import SignedRequest
from nimbus_server.accounts.tokens import TokenKind
from nimbus_server.clock import Clock
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.call import Call, Context, current_call, read_call
from nimbus_server.rpc.json_body import read_json_body
from nimbus_server.rpc.registry import Rpc
from nimbus_server.rpc.status import TABLE, status_of

log = structlog.get_logger("nimbus.rpc")

SIGNATURE_HEADERS = ("x-api-key-id", "x-api-timestamp", "x-api-signature")


class ObserveInterceptor(AsyncServerInterceptor):
    """Gives a call its id, logs how it ended, and turns exceptions into statuses: nothing internal gets out."""

    def __init__(self, rpcs: Mapping[str, Rpc]) -> None:
        self._rpcs = rpcs

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Context, method_name: str
    ) -> Any:
        """See the class."""
        if method_name not in self._rpcs:
            return await super().intercept(method, request_or_iterator, context, method_name)
        call = read_call(method_name, context)
        current_call.set(call)
        started = time.perf_counter()
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        if self._rpcs[method_name].is_stream:
            return self._observe_stream(method(request_or_iterator, context), call, started, context)
        try:
            response = await method(request_or_iterator, context)
        except BaseException as error:  # noqa: BLE001 - raised again, as what the client may know of it
            await self._fail(error, call, started, context)
        else:
            _log(log.debug, call, started, "OK", None)
            return response

    async def _observe_stream(
        self, responses: AsyncIterator[Message], call: Call, started: float, context: Context
    ) -> AsyncIterator[Message]:
        try:
            async for response in responses:
                yield response
        except BaseException as error:  # noqa: BLE001 - as above
            await self._fail(error, call, started, context)
        else:
            _log(log.debug, call, started, "OK", None)

    async def _fail(self, error: BaseException, call: Call, started: float, context: Context) -> NoReturn:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            _log(log.info, call, started, "CANCELLED", None)
            raise error
        if isinstance(error, AbortError) or not isinstance(error, Exception):
            raise error
        if not isinstance(error, NimbusError):
            log.error("defect", rpc=call.rpc, request_id=call.request_id, exc_info=error)
            error = NimbusError(
                Reason.INTERNAL, "Something went wrong in Nimbus.", metadata={"request_id": call.request_id}
            )
        mapping = TABLE[error.reason]
        _log(log.info, call, started, mapping.code.name, error.reason)
        if call.is_rest and (headers := _rest_headers(error)):
            await context.send_initial_metadata(headers)
        trailing = (
            ("x-request-id", call.request_id),
            ("grpc-status-details-bin", status_of(error).SerializeToString()),
        )
        await context.abort(mapping.code, error.message, trailing)


def _rest_headers(error: NimbusError) -> tuple[tuple[str, str], ...]:
    wait = error.retry_after_seconds
    return (
        *((("retry-after", str(math.ceil(wait))),) if wait is not None else ()),
        # For the edge, which would make it 429.
        *((("x-http-status", "413"),) if error.reason is Reason.BODY_TOO_LARGE else ()),
    )


def _log(write: Callable[..., Any], call: Call, started: float, code: str, reason: Reason | None) -> None:
    write(
        "call",
        rpc=call.rpc,
        code=code,
        reason=reason.value if reason else None,
        rest=call.is_rest,
        ms=round((time.perf_counter() - started) * 1000, 2),
        request_id=call.request_id,
    )


class AdmitInterceptor(AsyncServerInterceptor):
    """Parses the request and finds out who calls, as the RPC's access option asks.

    Requests arrive as the bytes on the wire, because those are what a gRPC client signed.
    """

    def __init__(self, rpcs: Mapping[str, Rpc], authenticator: Authenticator, clock: Clock) -> None:
        self._rpcs = rpcs
        self._authenticator = authenticator
        self._clock = clock

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Context, method_name: str
    ) -> Any:
        """See the class."""
        rpc = self._rpcs.get(method_name)
        if rpc is None:
            return await super().intercept(method, request_or_iterator, context, method_name)
        call = current_call.get()
        if rpc.is_stream:
            return method(self._admit_stream(rpc, call, request_or_iterator), context)
        raw: bytes = request_or_iterator
        _check_size(rpc, raw)
        # A stranger's message is not parsed. Over REST the signature is over the body inside of the message, and all
        # that a client can put there are bytes.
        request = rpc.parse(raw) if call.is_rest else None
        if rpc.access != Access.ACCESS_PUBLIC:
            current_caller.set(await self._authenticate(rpc, call, raw, request))
        if request is None:
            request = rpc.parse(raw)
        if rpc.has_json_body:
            read_json_body(request, call.rest_path)
        return await method(request, context)

    async def _admit_stream(self, rpc: Rpc, call: Call, raws: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        """The messages of a stream; its credentials hold for the first, and those of a person are asked for again."""
        who: Caller | None = None
        async for raw in raws:
            _check_size(rpc, raw)
            if not isinstance(who, Machine):
                who = await self._authenticate(rpc, call, raw, None)
                current_caller.set(who)
            yield rpc.parse(raw)

    async def _authenticate(self, rpc: Rpc, call: Call, raw: bytes, request: Message | None) -> Caller:
        if rpc.access == Access.ACCESS_PROJECT and any(h in call.metadata for h in SIGNATURE_HEADERS):
            signed = _signed_request(call, raw, request)
            return await self._authenticator.machine(signed, self._clock(), key_is_checked_later=rpc.is_ingest)
        scheme, _, token = call.metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NimbusError(Reason.CREDENTIALS_MISSING, _what_is_needed(rpc))
        kind = TokenKind.REFRESH if rpc.access == Access.ACCESS_REFRESH else TokenKind.ACCESS
        return await self._authenticator.person(token.strip(), kind)


def _check_size(rpc: Rpc, raw: bytes) -> None:
    if len(raw) > rpc.request_bytes_max:
        raise NimbusError(
            Reason.REQUEST_UNPARSABLE, f"A request of this call has at most {rpc.request_bytes_max} bytes."
        )


def _signed_request(call: Call, raw: bytes, request: Message | None) -> SignedRequest:
    lacking = [name for name in SIGNATURE_HEADERS if not call.metadata.get(name)]
    if lacking:
        raise NimbusError(Reason.CREDENTIALS_MISSING, f"A signed request also needs {' and '.join(lacking)}.")
    key_id, timestamp, signature = (call.metadata[name] for name in SIGNATURE_HEADERS)
    if call.rest_path is None or request is None:
        return SignedRequest(key_id, timestamp, signature, "POST", call.rpc, raw)
    # Of the RPCs that a machine may call only the one with an HttpBody has a body over REST.
    body: bytes = request.http_body.data if "http_body" in request.DESCRIPTOR.fields_by_name else b""  # type: ignore[attr-defined]
    return SignedRequest(key_id, timestamp, signature, call.rest_method or "POST", call.rest_path, body)


def _what_is_needed(rpc: Rpc) -> str:
    if rpc.access == Access.ACCESS_REFRESH:
        return "This call needs `authorization: Bearer` with a refresh token."
    if rpc.access == Access.ACCESS_PROJECT:
        headers = ", ".join(SIGNATURE_HEADERS)
        return f"This call needs a signature in {headers}, or `authorization: Bearer` with an access token."
    return "This call needs `authorization: Bearer` with an access token. Log in to get one."

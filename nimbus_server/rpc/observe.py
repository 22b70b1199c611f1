"""What a call meets first: its id, and a log line and a status for how it ended."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

from grpc.aio import AbortError
from grpc_interceptor.server import AsyncServerInterceptor

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.call import Call, Context, current_call, log_end, read_call, told
from nimbus_server.rpc.registry import Rpc
from nimbus_server.rpc.status import TABLE, status_of


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
        if self._rpcs[method_name].gives_stream:
            return self._observe_stream(method(request_or_iterator, context), call, started, context)
        try:
            response = await method(request_or_iterator, context)
        except BaseException as error:  # noqa: BLE001 - raised again, as what the client may know of it
            await self._fail(error, call, started, context)
        else:
            log_end(call, started, "OK")
            return response

    async def _observe_stream(
        self, responses: AsyncIterator[Any], call: Call, started: float, context: Context
    ) -> AsyncIterator[Any]:
        cut: list[asyncio.Task[NoReturn]] = []

        def cut_off(error: NimbusError) -> None:
            if not cut:
                cut.append(asyncio.create_task(self._fail(error, call, started, context)))
                cut[0].add_done_callback(lambda failing: failing.cancelled() or failing.exception())

        call.cut_off = cut_off
        try:
            async for response in responses:
                yield response
        except BaseException as error:
            if cut:
                raise
            await self._fail(error, call, started, context)
        else:
            log_end(call, started, "OK")

    async def _fail(self, error: BaseException, call: Call, started: float, context: Context) -> NoReturn:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            log_end(call, started, "CANCELLED")
            raise error
        if isinstance(error, AbortError) or not isinstance(error, Exception):
            raise error
        error = told(error, call)
        mapping = TABLE[error.reason]
        log_end(call, started, mapping.code.name, error.reason)
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

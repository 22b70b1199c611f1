"""What a call meets first: its id, and a log line and a status for how it ended."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NoReturn

from grpc.aio import BaseError

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.call import Call, Context, current_call, log_end, read_call, told
from nimbus_server.rpc.interceptor import RpcInterceptor
from nimbus_server.rpc.registry import Rpc
from nimbus_server.rpc.status import TABLE, status_of


class ObserveInterceptor(RpcInterceptor):
    """Gives a call its id, logs how it ended, and turns exceptions into statuses: nothing internal gets out.

    The outermost one: it sends the responses of a stream itself. gRPC would leave the generators of a stream that is
    cancelled to the garbage collector, which closes them late, and in any order.
    """

    def wrapper(self, rpc: Rpc) -> Callable[..., Any]:
        """See the class."""
        return self._stream if rpc.gives_stream else self._answer

    async def _answer(self, rpc: Rpc, method: Callable[..., Any], request: Any, context: Context) -> Any:
        call, started = _begin(rpc, context)
        try:
            response = await method(request, context)
        except asyncio.CancelledError:
            log_end(call, started, "CANCELLED")
            raise
        except Exception as error:  # noqa: BLE001 - the client is told what it may know of it
            failure = _failure(error, call)
        else:
            log_end(call, started, "OK")
            return response
        # gRPC keeps the traceback of an abort, and with it this frame, until the garbage collector comes.
        del request
        return await _abort(failure, call, started, context)

    async def _stream(self, rpc: Rpc, method: Callable[..., Any], request: Any, context: Context) -> None:
        call, started = _begin(rpc, context)
        cut: list[asyncio.Task[NoReturn]] = []

        def cut_off(error: NimbusError) -> None:
            if not cut:
                cut.append(asyncio.create_task(_abort(error, call, started, context)))
                cut[0].add_done_callback(lambda aborting: aborting.cancelled() or aborting.exception())

        call.cut_off = cut_off
        try:
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
        except (asyncio.CancelledError, BaseError):  # gRPC's own: the client is gone, or the server stops
            if not cut:
                log_end(call, started, "CANCELLED")
            raise
        except Exception as error:
            if cut:
                raise
            failure = _failure(error, call)
        else:
            log_end(call, started, "OK")
            return
        finally:
            call.cut_off = None
        del request
        await _abort(failure, call, started, context)


def _begin(rpc: Rpc, context: Context) -> tuple[Call, float]:
    call = read_call(rpc.name, context)
    current_call.set(call)
    context.set_trailing_metadata((("x-request-id", call.request_id),))
    return call, time.perf_counter()


def _failure(error: Exception, call: Call) -> NimbusError:
    """What the client may know of an error, without the frames in which it came up: they hold the request."""
    return told(error, call).with_traceback(None)


async def _abort(error: NimbusError, call: Call, started: float, context: Context) -> NoReturn:
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

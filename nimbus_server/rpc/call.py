"""What is known of a call before anything is decided about it."""

import math
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog
from grpc.aio import ServicerContext

from nimbus_server.errors import NimbusError, Reason

log = structlog.get_logger("nimbus.rpc")

# Generic for type checkers alone.
Context: TypeAlias = "ServicerContext[Any, Any]"


@dataclass(slots=True)
class Call:
    """One RPC.

    `rest_method` and `rest_path` (with its query) are what a REST client sent, byte by byte; None for gRPC.
    `deadline_seconds` is what the client or the edge gives it from now on, `client_seconds` what the client alone does;
    None for no limit. `cut_off` ends a stream whose client takes nothing: with an error, behind what is on its way.
    """

    rpc: str
    request_id: str
    metadata: dict[str, str] = field(repr=False)
    rest_method: str | None
    rest_path: str | None
    deadline_seconds: float | None
    client_seconds: float | None = None
    cut_off: Callable[[NimbusError], None] | None = field(default=None, repr=False)
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def seconds_left(self) -> float | None:
        """Of `deadline_seconds`, by now."""
        return None if self.deadline_seconds is None else self.deadline_seconds - (time.monotonic() - self._began)

    @property
    def is_rest(self) -> bool:
        """Whether Envoy made this RPC from a JSON request."""
        return self.rest_path is not None

    @property
    def rest_query(self) -> str:
        """The query of a REST call, percent-encoded. It is in `rest_path` alone: Envoy routes calls without it."""
        return (self.rest_path or "").partition("?")[2]


def log_end(call: Call, started: float, code: str, reason: Reason | None = None) -> None:
    """Log how a call ended that began at `started` of time.perf_counter; one that went well, for those who debug."""
    (log.debug if code == "OK" else log.info)(
        "call",
        rpc=call.rpc,
        code=code,
        reason=reason.value if reason else None,
        rest=call.is_rest,
        ms=round((time.perf_counter() - started) * 1000, 2),
        request_id=call.request_id,
    )


def told(error: Exception, call: Call) -> NimbusError:
    """What the client may know of an error: of a defect no more than under which id it stands in the log."""
    if isinstance(error, NimbusError):
        return error
    log.error("defect", rpc=call.rpc, request_id=call.request_id, exc_info=error)
    return NimbusError(Reason.INTERNAL, "Something went wrong in Nimbus.", metadata={"request_id": call.request_id})


current_call: ContextVar[Call] = ContextVar("current_call")


def read_call(rpc: str, context: Context) -> Call:
    """The call behind a context.

    What Envoy sets is believed on the worker's private Unix socket alone: Envoy removes these headers from what comes
    to it, and no one else reaches the socket.
    """
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    from_edge = context.peer().startswith("unix:")
    remaining = by_client = context.time_remaining()
    at_edge = metadata.get("x-envoy-expected-rq-timeout-ms", "")
    if from_edge and at_edge.isdecimal():
        remaining = min(int(at_edge) / 1000, math.inf if remaining is None else remaining)
    return Call(
        rpc=rpc,
        request_id=(from_edge and metadata.get("x-request-id")) or str(uuid.uuid4()),
        metadata=metadata,
        rest_method=metadata.get("x-envoy-original-method") if from_edge else None,
        rest_path=metadata.get("x-nimbus-path") if from_edge and "x-envoy-original-path" in metadata else None,
        deadline_seconds=remaining,
        client_seconds=by_client,
    )

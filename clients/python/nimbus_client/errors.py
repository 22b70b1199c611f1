"""The one exception of this client, made from what a failed call carries."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

DETAILS_KEY = "grpc-status-details-bin"
TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
    }
)
# Without a word from Nimbus: how a connection that breaks under a stream shows.
LOST = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is wrong, and a sentence about it."""

    field: str
    message: str


class NimbusError(Exception):
    """A call failed, and retrying did not help or would not.

    `code` is the gRPC status, `reason` a value of `ErrorReason` without its prefix (such as `SIGNATURE_MISMATCH`) or
    empty where the answer did not come from Nimbus, `retry_after_seconds` what the server asked for, if anything.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(code, message, reason)
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        head = f"{self.code.name} {self.reason}".rstrip()
        return "\n  ".join((f"{head}: {self.message}", *(f"{v.field}: {v.message}" for v in self.violations)))

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        # A message beyond a size limit is RESOURCE_EXHAUSTED too, and stays too large. gRPC says so in words alone.
        too_large = self.reason == "BODY_TOO_LARGE" or "message larger than max" in self.message
        # Who cancels a call of their own gets no error: it was the connection that did.
        cancelled = self.code is grpc.StatusCode.CANCELLED and not self.reason
        return (self.code in TRANSIENT and not too_large) or cancelled

    @property
    def connection_lost(self) -> bool:
        """Whether it tells of the way to Nimbus and not of the call: a stream that broke may be opened again."""
        return not self.reason and self.code in LOST


def error_from(error: grpc.RpcError) -> NimbusError:
    """The NimbusError that a failed call of either gRPC API amounts to."""
    reason, violations, retry_after_seconds = "", [], None
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            wrong = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            violations += [FieldViolation(w.field, w.description) for w in wrong]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_seconds = max(0.0, delay.seconds + delay.nanos / 1e9)
    return NimbusError(
        error.code(),
        error.details() or "",
        reason=reason,
        violations=tuple(violations),
        retry_after_seconds=retry_after_seconds,
    )


@contextmanager
def nimbus_errors() -> Iterator[None]:
    """Turns gRPC's errors inside the block into NimbusError."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from(error) from error


def _status(error: grpc.RpcError) -> status_pb2.Status:
    metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    try:
        return status_pb2.Status.FromString(dict(metadata).get(DETAILS_KEY, b""))
    except DecodeError:
        return status_pb2.Status()

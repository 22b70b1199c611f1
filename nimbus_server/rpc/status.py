"""The one table from reason to gRPC status, and errors as google.rpc.Status.

The HTTP status follows from the gRPC code at the edge (google/rpc/code.proto); the table says it for people and for
the test that walks it.
"""

from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nimbus_server.errors import NimbusError, Reason, Violation

DOMAIN = "nimbus"


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a reason becomes. `http` is None for the reasons that only single events carry."""

    code: StatusCode
    http: int | None


INVALID = Mapping(StatusCode.INVALID_ARGUMENT, 400)
PER_EVENT = Mapping(StatusCode.INVALID_ARGUMENT, None)
UNAUTHENTICATED = Mapping(StatusCode.UNAUTHENTICATED, 401)
DENIED = Mapping(StatusCode.PERMISSION_DENIED, 403)

TABLE: dict[Reason, Mapping] = {
    Reason.FIELD_INVALID: INVALID,
    Reason.FIELD_REQUIRED: INVALID,
    Reason.FIELD_TOO_LONG: INVALID,
    Reason.FIELD_UNKNOWN: INVALID,
    Reason.REQUEST_UNPARSABLE: INVALID,
    Reason.PASSWORD_WEAK: INVALID,
    Reason.BATCH_EMPTY: INVALID,
    Reason.BATCH_TOO_LARGE: INVALID,
    Reason.TS_OUT_OF_RANGE: PER_EVENT,
    Reason.PROPS_TOO_DEEP: PER_EVENT,
    Reason.CREDENTIALS_MISSING: UNAUTHENTICATED,
    Reason.TOKEN_INVALID: UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: UNAUTHENTICATED,
    Reason.SESSION_ENDED: UNAUTHENTICATED,
    Reason.LOGIN_FAILED: UNAUTHENTICATED,
    Reason.API_KEY_UNKNOWN: UNAUTHENTICATED,
    Reason.SIGNATURE_STALE: UNAUTHENTICATED,
    Reason.SIGNATURE_MISMATCH: DENIED,
    Reason.PROJECT_MISMATCH: DENIED,
    Reason.PROJECT_NOT_FOUND: Mapping(StatusCode.NOT_FOUND, 404),
    Reason.ROUTE_NOT_FOUND: Mapping(StatusCode.NOT_FOUND, 404),
    Reason.CONSUMER_NOT_FOUND: Mapping(StatusCode.NOT_FOUND, 404),
    Reason.CONSUMER_BUSY: Mapping(StatusCode.ABORTED, 409),
    Reason.CONSUMER_TAKEN_OVER: Mapping(StatusCode.FAILED_PRECONDITION, 400),
    Reason.POSITION_AHEAD: Mapping(StatusCode.OUT_OF_RANGE, 400),
    Reason.EMAIL_TAKEN: Mapping(StatusCode.ALREADY_EXISTS, 409),
    Reason.QUESTION_TOO_LARGE: Mapping(StatusCode.FAILED_PRECONDITION, 400),
    Reason.BODY_TOO_LARGE: Mapping(StatusCode.RESOURCE_EXHAUSTED, 413),
    Reason.RATE_LIMITED: Mapping(StatusCode.RESOURCE_EXHAUSTED, 429),
    Reason.OVERLOADED: Mapping(StatusCode.RESOURCE_EXHAUSTED, 429),
    Reason.STORAGE_UNAVAILABLE: Mapping(StatusCode.UNAVAILABLE, 503),
    Reason.WORKER_UNAVAILABLE: Mapping(StatusCode.UNAVAILABLE, 503),
    Reason.ANALYST_UNAVAILABLE: Mapping(StatusCode.UNAVAILABLE, 503),
    Reason.DEADLINE_EXCEEDED: Mapping(StatusCode.DEADLINE_EXCEEDED, 504),
    Reason.INTERNAL: Mapping(StatusCode.INTERNAL, 500),
}


def error_json(error: NimbusError) -> dict[str, object]:
    """The error as REST shows it, for JSON that goes out in some other way."""
    shown: dict[str, object] = json_format.MessageToDict(
        status_of(error), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown


def status_of(error: NimbusError) -> Status:
    """The error with its details: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    details: list[Message] = [ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=v.field, description=v.message) for v in error.violations
                ]
            )
        )
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        details.append(RetryInfo(retry_delay=delay))
    status = Status(code=TABLE[error.reason].code.value[0], message=error.message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def error_of(status: Status) -> NimbusError | None:
    """The error that status_of made the status of; None where it is not one of Nimbus."""
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            detail.Unpack(message)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    return NimbusError(
        Reason(info.reason),
        status.message,
        violations=tuple(Violation(v.field, v.description) for v in bad.field_violations),
        metadata=info.metadata,
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
    )

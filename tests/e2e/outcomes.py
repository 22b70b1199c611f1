"""What becomes of a call, over whichever transport: a response, or a failure taken apart."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

# What differs from one run of the same calls to the next.
VOLATILE = {
    "id",
    "project_id",
    "email",
    "api_key_id",
    "after_id",
    "api_key_secret",
    "access_token",
    "refresh_token",
    "created_at",
    "updated_at",
    "received_at",
    "latency_ms",
    "uptime_seconds",
    "token",
    "expires_at",
    "acked_at",
    "active",
    "complete_through",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Failure:
    """A google.rpc.Status, taken apart; `reason` is None where it has no ErrorInfo. `retry_after` is the header."""

    code: int
    message: str
    reason: str | None = None
    violations: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None
    retry_after: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a call: a response or a failure. `answer` is there where the client sees HTTP."""

    response: Any = None
    failure: Failure | None = None
    request_id: str | None = None
    answer: Answer | None = None


def read_failure(status: Status, retry_after: str | None = None) -> Failure:
    reason, violations, metadata, retry = None, (), {}, None
    for detail in status.details:
        info, bad, wait = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "nimbus"
            assert reason is None, "more than one ErrorInfo"
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations = tuple(violation.field for violation in bad.field_violations)
            assert all(violation.description for violation in bad.field_violations)
        elif detail.Unpack(wait):
            retry = wait.retry_delay.ToTimedelta().total_seconds()
    return Failure(status.code, status.message, reason, violations, metadata, retry, retry_after)


def rest_failure(answer: Answer) -> Failure:
    """The error in a REST answer, which must have the documented form."""
    assert answer.headers["content-type"] == "application/json", answer
    assert set(answer.json) == {"code", "message", "details"}, answer
    return read_failure(json_format.ParseDict(answer.json, Status()), answer.headers.get("retry-after"))


def grpc_outcome(response: Message | None, code: int, message: str, trailers: Mapping[str, Any]) -> Outcome:
    request_id = trailers.get("x-request-id")
    if code == 0:
        return Outcome(response, None, request_id)
    status = Status.FromString(trailers.get("grpc-status-details-bin") or b"")
    if not status.code:
        return Outcome(None, Failure(code, message), request_id)
    assert (status.code, status.message) == (code, message), "the status and its details disagree"
    return Outcome(None, read_failure(status), request_id)


def masked(value: Any) -> Any:
    """Fields of a response without what differs from one run to the next."""
    if isinstance(value, dict):
        return {name: "…" if name in VOLATILE and item != "" else masked(item) for name, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value

"""Every reason has a status, the same in the table, in the proto and in its comments."""

import re
from pathlib import Path

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc import StatusCode

from nimbus.v1.error_reason_pb2 import ErrorReason
from nimbus_server.errors import NimbusError, Reason, Violation, overloaded, project_not_found, storage_unavailable
from nimbus_server.rpc.status import TABLE, status_of

PROTO = (Path(__file__).parents[2] / "proto/nimbus/v1/error_reason.proto").read_text(encoding="utf-8")
# What the edge makes of a code, from google/rpc/code.proto.
HTTP = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


def test_every_reason_is_in_the_table() -> None:
    assert set(TABLE) == set(Reason)


def test_the_reasons_are_those_of_the_proto() -> None:
    in_proto = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert in_proto == {reason.value for reason in Reason} == {reason.name for reason in Reason}


@pytest.mark.parametrize("reason", Reason)
def test_the_proto_says_the_status_that_the_table_gives(reason: Reason) -> None:
    lines = PROTO.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"  ERROR_REASON_{reason} ="))
    comment = ""
    for line in reversed(lines[:at]):
        if not line.startswith("  //"):
            break
        comment = line + comment
    said = re.match(r"\s*// (\w+), (\d{3})", comment)
    mapping = TABLE[reason]
    assert (said and (said[1], int(said[2]))) == (mapping.http and (mapping.code.name, mapping.http))
    assert f'"{reason}"' in comment


@pytest.mark.parametrize("reason", Reason)
def test_the_http_status_is_the_one_that_the_edge_makes_of_the_code(reason: Reason) -> None:
    mapping = TABLE[reason]
    # The edge answers for bodies that are too large before there is a gRPC code.
    assert mapping.http in {HTTP[mapping.code], None, 413 if reason is Reason.BODY_TOO_LARGE else None}


@pytest.mark.parametrize("reason", Reason)
def test_a_status_carries_its_reason_and_domain(reason: Reason) -> None:
    status = status_of(NimbusError(reason, "A sentence.", metadata={"a": "b"}))
    info = ErrorInfo()
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (TABLE[reason].code.value[0], "A sentence.")
    assert (info.reason, info.domain, dict(info.metadata)) == (reason.value, "nimbus", {"a": "b"})


def test_a_wrong_field_and_a_time_to_wait_are_details() -> None:
    error = NimbusError(
        Reason.FIELD_INVALID, "No.", violations=(Violation("name", "name must be."),), retry_after_seconds=1.5
    )
    bad, retry = BadRequest(), RetryInfo()
    details = status_of(error).details
    assert details[1].Unpack(bad)
    assert details[2].Unpack(retry)
    assert [(v.field, v.description) for v in bad.field_violations] == [("name", "name must be.")]
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_what_waiting_helps_says_so_and_what_it_does_not_help_does_not() -> None:
    assert overloaded().retry_after_seconds
    assert storage_unavailable().retry_after_seconds
    assert project_not_found().retry_after_seconds is None

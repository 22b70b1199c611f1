"""Headers that mean something to gRPC: nothing over REST, and refused with a reason over gRPC where they are bad."""

import grpc
import pytest
from conftest import Account, Stack
from credentials import person
from outcomes import rest_failure
from surface import RPCS
from transports import over_grpc, send

from nimbus_server.errors import Reason

GET_ME = RPCS["AuthService.GetMe"]
OVER_REST = {
    "grpc-timeout": ("1n", "0S", "soon", "-1S", "999999999999S"),
    "grpc-encoding": ("bogus", "gzip", ""),
    "grpc-accept-encoding": ("bogus", "gzip", ""),
    "grpc-status": ("13",),
    "grpc-message": ("%ff",),
    "grpc-previous-rpc-attempts": ("99", "x"),
    "grpc-internal-encoding-request": ("bogus",),
    "grpc-trace-bin": ("no base64!",),
    "grpc-of-tomorrow": ("x",),
    "te": ("gzip", "trailers", "bogus"),
}


@pytest.mark.parametrize("name", OVER_REST)
def test_no_header_of_grpc_changes_a_rest_call(stack: Stack, account: Account, name: str) -> None:
    for value in OVER_REST[name]:
        for kind in ({}, {"content-type": "application/json"}):
            answer = send(stack, "GET", "/v1/auth/me", None, {name: value, **kind, **account.bearer})
            assert (answer.status, answer.json["email"]) == (200, account.email), (name, value, kind)
        answer = send(stack, "POST", "/v1/auth/login", b"{}", {name: value, "content-type": "application/json"})
        assert (answer.status, rest_failure(answer).reason) == (400, Reason.FIELD_REQUIRED), (name, value)


def raw_grpc(stack: Stack, headers: dict[str, str]) -> dict[str, str]:
    sent = {"content-type": "application/grpc", "te": "trailers", **headers}
    return send(stack, "POST", GET_ME.wire, b"\0\0\0\0\0", sent).headers


@pytest.mark.parametrize(
    "headers", [{"grpc-timeout": "soon"}, {"grpc-timeout": "-1S"}, {"grpc-encoding": "bogus"}, {"grpc-encoding": "br"}]
)
def test_a_bad_header_of_a_grpc_call_is_refused_with_a_reason(stack: Stack, headers: dict[str, str]) -> None:
    answer = raw_grpc(stack, headers)
    assert answer["grpc-status"] == "3"
    assert next(iter(headers)) in answer["grpc-message"]
    assert "grpc-status-details-bin" in answer


def metadata(count: int, length: int = 1) -> dict[str, str]:
    return {f"x_{i}": "v" * length for i in range(count)}


@pytest.mark.parametrize(("count", "length"), [(80, 1), (80, 600)])
def test_as_many_headers_as_the_edge_takes_work(stack: Stack, account: Account, count: int, length: int) -> None:
    headers = {name.replace("_", "-"): value for name, value in metadata(count, length).items()}
    for path, status in (("/health", 200), ("/v1/auth/me", 200), ("/v1/nope", 404)):
        assert send(stack, "GET", path, None, {**headers, **account.bearer}).status == status
    assert over_grpc(stack.edge_target, GET_ME, {}, person(account), **metadata(count, length)).failure is None


@pytest.mark.parametrize(("count", "length"), [(101, 1), (300, 1), (5000, 1), (2, 40_000), (70, 1000)])
def test_more_headers_are_refused_with_a_reason(stack: Stack, account: Account, count: int, length: int) -> None:
    headers = {name.replace("_", "-"): value for name, value in metadata(count, length).items()}
    answer = send(stack, "GET", "/health", None, headers)
    assert (answer.status, rest_failure(answer).reason) == (431, Reason.REQUEST_UNPARSABLE)
    failure = over_grpc(stack.edge_target, GET_ME, {}, person(account), **metadata(count, length)).failure
    assert failure is not None
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], Reason.REQUEST_UNPARSABLE)

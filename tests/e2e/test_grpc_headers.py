"""Headers that mean something to gRPC: nothing over REST, and refused with a reason over gRPC where they are bad."""

import base64
from urllib.parse import unquote

import grpc
import pytest
from conftest import Account, Stack
from credentials import person
from outcomes import Answer, Failure, grpc_outcome, rest_failure
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


def raw_grpc(stack: Stack, headers: dict[str, str], path: str = GET_ME.wire) -> Answer:
    """A call with headers that no client library sends, over HTTP/1.1: Envoy takes that too, but drops the trailers."""
    sent = {"content-type": "application/grpc", "te": "trailers", **headers}
    return send(stack, "POST", path, b"\0\0\0\0\0", sent)


BAD = (
    ("grpc-timeout", ""),
    ("grpc-timeout", "soon"),
    ("grpc-timeout", "-1S"),
    ("grpc-timeout", "999999999S"),
    ("grpc-encoding", ""),
    ("grpc-encoding", "bogus"),
    ("grpc-encoding", "GZIP"),
    ("te", "gzip"),
)


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"])
@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_header_of_a_grpc_call_is_refused_with_a_reason(stack: Stack, name: str, value: str, kind: str) -> None:
    if (name, kind) == ("te", "application/grpc-web+proto"):
        return  # no client in a browser sends it
    failure = grpc_failure(raw_grpc(stack, {name: value, "content-type": kind}))
    assert (failure.code, failure.reason) == (3, Reason.REQUEST_UNPARSABLE)
    assert name in failure.message


def test_a_path_that_can_not_be_read_is_refused_over_grpc_too(stack: Stack) -> None:
    failure = grpc_failure(raw_grpc(stack, {}, GET_ME.wire + "#x"))
    assert (failure.code, failure.reason) == (3, Reason.REQUEST_UNPARSABLE)


def grpc_failure(answer: Answer) -> Failure:
    details = answer.headers["grpc-status-details-bin"]
    found = {**answer.headers, "grpc-status-details-bin": base64.b64decode(details + "=" * (-len(details) % 4))}
    message = unquote(answer.headers.get("grpc-message") or answer.body.decode())
    failure = grpc_outcome(None, int(answer.headers["grpc-status"]), message, found).failure
    assert failure is not None
    return failure


IGNORED = {
    "grpc-status": ("0", "13", "x"),
    "grpc-message": ("%ff",),
    "grpc-previous-rpc-attempts": ("1", "x", "99999999999999"),
    "grpc-retry-pushback-ms": ("1", "x"),
    "grpc-trace-bin": ("no base64!",),
    "x-anything-bin": ("no base64!",),
    "x-envoy-original-path": ("/v1/projects",),
    "x-envoy-expected-rq-timeout-ms": ("1",),
    "x-envoy-upstream-rq-timeout-ms": ("1",),
}


@pytest.mark.parametrize("name", IGNORED)
def test_headers_that_are_not_for_the_server_change_no_grpc_call(stack: Stack, account: Account, name: str) -> None:
    for value in IGNORED[name]:
        answer = raw_grpc(stack, {name: value, **account.bearer})
        assert account.email.encode() in answer.body, (value, answer)


@pytest.mark.parametrize(
    "kind", ["application/grpcx", "application/grpc-foo", "application/grpc;x", "Application/gRPC"]
)
def test_what_only_looks_like_grpc_is_answered_as_json(stack: Stack, account: Account, kind: str) -> None:
    for method, path, status in (("GET", "/v1/nope", 404), ("POST", GET_ME.wire, 404), ("GET", "/v1/projects#x", 400)):
        answer = send(stack, method, path, None, {"content-type": kind, "grpc-timeout": "soon", **account.bearer})
        assert answer.status == status
        assert rest_failure(answer).reason
        assert "grpc-status" not in answer.headers


def test_what_the_edge_notes_for_itself_can_not_be_sent_from_outside(stack: Stack, account: Account) -> None:
    said = {
        "x-nimbus-content-type": "application/grpc",
        "x-nimbus-headers": "1000",
        "x-nimbus-headers-size": "100000",
        "x-nimbus-path": "/v1/nope",
        "x-nimbus-prepared": "1",
        "x-envoy-original-method": "HEAD",
        "x-envoy-original-path": "/v1/nope",
    }
    for name, value in said.items():
        answer = send(stack, "GET", "/v1/%70rojects", None, {name: value, **account.bearer})
        assert (answer.status, len(answer.json["items"])) == (200, 1), name
        for path, status in (("/v1/nope", 404), ("/v1/projects#x", 400)):
            answer = send(stack, "GET", path, None, {name: value})
            assert (answer.status, bool(rest_failure(answer).reason)) == (status, True), name


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

"""HEAD, wherever GET goes: the same status and headers, and no body."""

import subprocess

import pytest
import requests
from conftest import Account, Stack
from credentials import Credentials, machine, nobody, person
from surface import ROUTES, Route
from transports import send

GETS = [route for route in ROUTES if route.method == "GET"]
STATIC = ("/docs", "/openapi.json", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/redoc", "/", "/v1/nope")
# Of what differs from one answer to the next, and what only bodies have.
VOLATILE = {"date", "x-request-id", "x-envoy-upstream-service-time", "transfer-encoding", "content-length"}


def check(stack: Stack, path: str, who: Credentials, *, length: bool = True) -> int:
    got = send(stack, "GET", path, None, who("GET", path, b""))
    asked = send(stack, "HEAD", path, None, who("HEAD", path, b""))
    assert asked.status == got.status, (path, got, asked)
    assert asked.body == b""
    assert {name: value for name, value in asked.headers.items() if name not in VOLATILE} == {
        name: value for name, value in got.headers.items() if name not in VOLATILE
    }
    if length:
        assert asked.headers.get("content-length", "0") == got.headers.get("content-length")
    return asked.status


@pytest.mark.parametrize("route", GETS, ids=str)
def test_head_is_answered_as_get_is_without_its_body(stack: Stack, account: Account, route: Route) -> None:
    path = route.filled(account.project_id)
    # Figures that grow, and a stream that has no length.
    length = path not in {"/health/detailed", "/v1/metrics", "/v1/events/stream", "/readiness", "/v1/health"}
    for who in (nobody, person(account), machine(account)):
        check(stack, path, who, length=length)
    check(stack, f"{path}?nonsense=1", person(account), length=length)


@pytest.mark.parametrize("path", STATIC)
def test_head_of_what_the_edge_answers_by_itself_has_no_body(stack: Stack, path: str) -> None:
    check(stack, path, nobody)


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readiness", "/v1/health", "/docs"])
def test_a_monitor_that_asks_by_head_sees_that_nimbus_is_up(stack: Stack, path: str) -> None:
    assert check(stack, path, nobody, length=False) == 200
    assert requests.head(stack.url + path, timeout=30).status_code == 200


def test_a_signature_is_over_the_method_that_was_sent(stack: Stack, account: Account) -> None:
    path = f"/v1/events?project_id={account.project_id}"
    assert send(stack, "HEAD", path, None, machine(account)("HEAD", path, b"")).status == 200
    assert send(stack, "HEAD", path, None, machine(account)("GET", path, b"")).status == 403
    assert send(stack, "GET", path, None, machine(account)("HEAD", path, b"")).status == 403


def test_a_connection_goes_on_after_heads(stack: Stack, account: Account) -> None:
    with requests.Session() as session:
        for path in (
            "/health",
            "/docs",
            f"/v1/events/stream?project_id={account.project_id}",
            "/v1/nope",
            "/v1/auth/me",
        ):
            head = session.head(stack.url + path, headers=account.bearer, timeout=30)
            assert head.content == b""
            assert session.get(f"{stack.url}/v1/auth/me", headers=account.bearer, timeout=30).status_code == 200


def test_head_of_a_stream_ends_at_once(stack: Stack, account: Account) -> None:
    path = f"/v1/events/stream?project_id={account.project_id}"
    answer = send(stack, "HEAD", path, None, account.bearer)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")
    assert send(stack, "HEAD", path).status == 401
    assert send(stack, "HEAD", "/v1/events/stream?project_id=x", None, account.bearer).status == 400


@pytest.mark.parametrize("path", ["/health", "/v1/auth/me", "/docs", "/v1/nope"])
def test_over_http_2_no_body_comes_either(stack: Stack, path: str) -> None:
    command = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "--head", stack.url + path]
    answered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answered.returncode == 0, answered
    assert answered.stdout.startswith(f"HTTP/2 {requests.head(stack.url + path, timeout=30).status_code}")

"""What pages of other origins may read: every answer where the origin is allowed, and nothing elsewhere."""

from collections.abc import Iterator, Mapping

import pytest
from conftest import Stack, own_stack
from outcomes import Answer
from transports import send

PER_MINUTE = 100
ALLOWED, FOREIGN = "https://app.example.com", "https://evil.example.com"
LIMITED = "127.0.0.77"


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    environment = {
        "NIMBUS_WORKERS": "1",
        "NIMBUS_RATE_LIMIT_ENABLED": "true",
        "NIMBUS_RATE_LIMIT_PER_MINUTE": str(PER_MINUTE),
        "NIMBUS_ALLOWED_ORIGINS": f"{ALLOWED},http://localhost:3000",
    }
    with own_stack(environment) as stack:
        yield stack


JSON = {"content-type": "application/json"}
GRPC = {"content-type": "application/grpc", "te": "trailers"}
WEBSOCKET = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
ANSWERS: dict[str, tuple[int, str, str, Mapping[str, str], bytes | None]] = {
    "success": (200, "GET", "/health", {}, None),
    "success of HEAD": (200, "HEAD", "/health", {}, None),
    "documentation": (200, "GET", "/docs", {}, None),
    "description": (200, "GET", "/openapi.json", {}, None),
    "redirect": (307, "GET", "/redoc", {}, None),
    "bad body": (400, "POST", "/v1/auth/login", JSON, b"{"),
    "bad path": (400, "GET", "/v1/projects#x", {}, None),
    "no credentials": (401, "GET", "/v1/auth/me", {}, None),
    "no such route": (404, "GET", "/v1/nope", {}, None),
    "no such route for HEAD": (404, "HEAD", "/v1/nope", {}, None),
    "slash behind what is to be deleted": (404, "DELETE", "/v1/projects/", {}, None),
    "no upgrade": (403, "GET", "/health", WEBSOCKET, None),
    "no WebSocket": (400, "GET", "/ws/projects/x", {}, None),
    "large header": (431, "GET", "/health", {"x-large": "x" * 70_000}, None),
    "larger header": (431, "GET", "/health", {"x-large": "x" * 150_000}, None),
    "large path": (431, "GET", "/v1/projects/" + "x" * 100_000, {}, None),
    "many headers": (431, "GET", "/health", {f"x-{i}": "v" for i in range(500)}, None),
    "large body": (413, "POST", "/v1/events", {**JSON, "content-length": "50000000"}, b"x" * 50_000_000),
    "bad grpc-timeout": (200, "POST", "/nimbus.v1.AuthService/GetMe", {**GRPC, "grpc-timeout": "soon"}, b""),
    "gRPC-web": (200, "POST", "/nimbus.v1.AuthService/GetMe", {"content-type": "application/grpc-web"}, b"\0\0\0\0\0"),
    "a gRPC call that is none": (200, "GET", "/nimbus.v1.AuthService/GetMe", GRPC, None),
}


def leave(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("what", ANSWERS)
def test_pages_of_allowed_origins_alone_may_read_an_answer(own: Stack, what: str) -> None:
    status, method, path, headers, body = ANSWERS[what]
    for origin in (ALLOWED, FOREIGN, "null", f"{ALLOWED}.evil.com", None):
        answer = send(own, method, path, body, {**headers, **({"origin": origin} if origin else {})})
        assert answer.status == status, answer
        assert answer.headers["vary"].lower() == "origin"
        if origin != ALLOWED:
            assert not leave(answer)
            continue
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"grpc-status", "grpc-message", "grpc-status-details-bin", "retry-after", "x-request-id"} <= exposed


def test_who_asks_too_often_may_read_that(own: Stack) -> None:
    answers = (send(own, "GET", "/health", None, {"origin": ALLOWED}, LIMITED) for _ in range(2 * PER_MINUTE + 1))
    answer = next(answer for answer in answers if answer.status != 200)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (429, ALLOWED)
    assert answer.headers["vary"] == "origin"
    assert answer.headers["retry-after"] == "60"
    assert not leave(send(own, "GET", "/health", None, {"origin": FOREIGN}, LIMITED))


def test_a_preflight_may_not_be_kept_for_another_origin(own: Stack) -> None:
    for origin in (ALLOWED, FOREIGN):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        answer = send(own, "OPTIONS", "/v1/events", None, headers)
        assert answer.headers["vary"] == "origin"
        assert ("access-control-allow-methods" in answer.headers) == (origin == ALLOWED)


def test_without_allowed_origins_no_answer_depends_on_one(stack: Stack) -> None:
    for path in ("/health", "/docs", "/v1/nope"):
        answer = send(stack, "GET", path, None, {"origin": ALLOWED})
        assert not leave(answer)
        assert "vary" not in answer.headers

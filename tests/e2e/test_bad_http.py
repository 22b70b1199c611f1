"""Odd methods, paths, headers and bytes on the wire: answered in the documented form, by the edge or a worker."""

import pytest
from bad_values import check_answer
from conftest import Account, Stack
from outcomes import rest_failure
from surface import ROUTES, Route
from transports import send, send_raw

from nimbus_server.errors import Reason

CONTENT_TYPES = (
    "",
    "json",
    ";",
    "text/plain",
    "text/html",
    "APPLICATION/JSON",
    "application/json; charset=utf-16",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/connect+json",
    "application/octet-stream",
    "application/é",
)
GRPC_CONTENT_TYPES = ("application/grpc", "application/grpc+json", "application/grpc-web", "application/grpc-web-text")
ODD_HEADERS = (
    ("x-long", "x" * 50_000),
    ("x-long", "x" * 70_000),
    ("x-latin", "é"),
    ("grpc-timeout", "soon"),
    ("grpc-timeout", "-1S"),
    ("grpc-timeout", "999999999999S"),
    ("some-bin", "no base64!"),
    ("grpc-trace-bin", "no base64!"),
    ("grpc-encoding", "gzip"),
    ("content-encoding", "gzip"),
    ("te", "trailers"),
    ("expect", "something"),
    ("range", "bytes=0-1"),
    ("cookie", "a=\x80"),
    ("x-http-method-override", "DELETE"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-max-retries", "100000"),
    ("x-envoy-original-path", "/v1/projects"),
    ("x-nimbus-content-type", "application/grpc"),
    ("authorization", "Bearer"),
    ("authorization", "Bearer é"),
    ("authorization", "Bearer " + "x" * 40_000),
    ("authorization", "Basic YTpi"),
    ("x-api-key-id", "é"),
    ("x-api-timestamp", "nan"),
    ("x-api-signature", "0" * 40_000),
)


def known(method: str, route: Route) -> bool:
    method = "GET" if method == "HEAD" else method
    return any(other.method == method and other.path == route.path for other in ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_method_that_a_route_does_not_have_is_not_found(stack: Stack, account: Account, route: Route) -> None:
    path = route.filled(account.project_id)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        if known(method, route):
            continue
        answer = send(stack, method, path, None, account.bearer)
        assert answer.status == 404, (method, path, answer)
        if method == "HEAD":
            assert answer.body == b""
        else:
            assert rest_failure(answer).reason == Reason.ROUTE_NOT_FOUND


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_no_content_type_is_our_fault(stack: Stack, account: Account, route: Route) -> None:
    path = route.filled(account.project_id)
    for kind in CONTENT_TYPES:
        for body in (b"", b'{"name": "x"}', b"\0\0\0\0\0"):
            headers = {"content-type": kind, **account.bearer}
            check_answer(send(stack, route.method, path, body, headers), (str(route), kind, body))


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_grpc_content_type_on_a_route_gets_a_grpc_error(stack: Stack, account: Account, route: Route) -> None:
    path = route.filled(account.project_id)
    for kind in GRPC_CONTENT_TYPES:
        answer = send(stack, route.method, path, b"", {"content-type": kind, **account.bearer})
        assert answer.status < 500, (str(route), kind, answer)
        assert answer.headers["content-type"].startswith("application/grpc")
        assert b"grpc-status:0" not in answer.body
        assert answer.headers.get("grpc-status") != "0"


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_no_header_is_our_fault(stack: Stack, account: Account, route: Route) -> None:
    path = route.filled(account.project_id)
    for name, value in ODD_HEADERS:
        answer = send(stack, route.method, path, None, {**account.bearer, name: value})
        check_answer(answer, (str(route), name, value[:40]))


def test_many_and_large_headers_are_refused_in_the_documented_form(stack: Stack) -> None:
    for headers in ({f"x-{i}": "v" for i in range(200)}, {"x-long": "x" * 100_000}):
        answer = send(stack, "GET", "/health", None, headers)
        assert answer.status == 431
        assert rest_failure(answer).reason == Reason.REQUEST_UNPARSABLE


ODD_PATHS = {
    "/v1/projects/": 200,
    "/v1/./projects": 200,
    "/v1/projects?": 200,
    "/v1//projects": 404,
    "/V1/PROJECTS": 404,
    "/v1/projects%2f": 404,
    "/v1/projects;x=1": 404,
    "/v1/%70rojects": 200,
    "/v1/projects/%00": 400,
    "/v1/projects#x": 400,
    "/v1/projects?page_size=1#x": 400,
    "/v1/projects/..%2f..%2fetc%2fpasswd": 400,
    "/v1/../../etc/passwd": 404,
    "/" + "x" * 20_000: 404,
    "/v1/projects/" + "x" * 50_000: 400,
    "/v1/projects/" + "x" * 100_000: 431,
    "/nimbus.v1.AuthService/GetMe": 404,
    "/grpc.health.v1.Health/Check": 404,
    "*": 400,
    "http://elsewhere.example.com/v1/projects": 200,
}


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: path[:40])
def test_odd_paths_are_answered_in_the_documented_form(stack: Stack, account: Account, path: str) -> None:
    answer = send(stack, "GET", path, None, account.bearer)
    check_answer(answer, path[:100])
    assert answer.status == ODD_PATHS[path]


# What is wrong with the bytes themselves. 501 is what RFC 9112, section 6.1, wants for an unknown transfer coding.
HOST = b"host: x\r\n"
ODD_BYTES = {
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "an unknown method": (b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space in the path": (b"GET /health?a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "raw UTF-8 in the path": ("GET /v1/projects/é HTTP/1.1\r\n".encode() + HOST + b"\r\n", 400),
    "a control character": (b"GET /health HTTP/1.1\r\n" + HOST + b"x-a: a\x01b\r\n\r\n", 400),
    "a NUL": (b"GET /health HTTP/1.1\r\n" + HOST + b"x-a: a\0b\r\n\r\n", 400),
    "a header without a colon": (b"GET /health HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", 400),
    "a pseudo header": (b"GET /health HTTP/1.1\r\n" + HOST + b":path: /v1/projects\r\n\r\n", 400),
    "a negative length": (b"POST /v1/projects HTTP/1.1\r\n" + HOST + b"content-length: -5\r\n\r\n", 400),
    "two lengths": (b"POST /v1/events HTTP/1.1\r\n" + HOST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
    "a length and chunks": (
        b"POST /v1/events HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a broken chunk": (b"POST /v1/projects HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "an unknown transfer coding": (
        b"POST /v1/projects HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    "a WebSocket": (b"GET /health HTTP/1.1\r\n" + HOST + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 403),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize("what", ODD_BYTES)
def test_odd_bytes_are_refused_in_the_documented_form(stack: Stack, what: str) -> None:
    request, status = ODD_BYTES[what]
    answer = send_raw(stack, request)
    assert answer.status == status
    assert rest_failure(answer).reason == Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize("host", [b"", b"host: x\r\n"])
def test_http_1_0_works_with_and_without_a_host(stack: Stack, host: bytes) -> None:
    answer = send_raw(stack, b"GET /health HTTP/1.0\r\n" + host + b"\r\n")
    assert (answer.status, answer.json) == (200, {"status": "ok"})

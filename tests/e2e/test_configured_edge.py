"""The edge with what is off by default: rate limits per address, and origins that browsers may call from.

Tests take addresses of their own, so that none uses up another's requests.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Account, Stack, new_account, own_stack
from credentials import person
from outcomes import Answer, rest_failure
from surface import RPCS
from transports import over_edge_grpc, over_grpc_web, over_native_grpc, send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from nimbus_server.errors import Reason

PER_MINUTE = 10
ALLOWED, ALSO_ALLOWED, FOREIGN = "https://app.example.com", "http://localhost:3000", "https://evil.example.com"
GET_ME = RPCS["AuthService.GetMe"]


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    environment = {
        "NIMBUS_WORKERS": "1",
        "NIMBUS_RATE_LIMIT_ENABLED": "true",
        "NIMBUS_RATE_LIMIT_PER_MINUTE": str(PER_MINUTE),
        "NIMBUS_ALLOWED_ORIGINS": f"{ALLOWED},{ALSO_ALLOWED}",
    }
    with own_stack(environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def someone(own: Stack) -> Account:
    """The only one to call from 127.0.0.1, which is where gRPC calls come from."""
    return new_account(own)


def statuses(stack: Stack, source: str, count: int, method: str = "GET", path: str = "/health") -> list[int]:
    body = b"{}" if method == "POST" else None
    return [send(stack, method, path, body, source=source).status for _ in range(count)]


def test_an_address_gets_so_many_requests_a_minute_and_another_its_own(own: Stack) -> None:
    for source in ("127.0.0.2", "127.0.0.3"):
        assert statuses(own, source, PER_MINUTE) == [200] * PER_MINUTE
        assert statuses(own, source, 3) == [429] * 3


def test_the_limit_covers_all_routes_together_and_no_header_evades_it(own: Stack) -> None:
    source = "127.0.0.4"
    seen = {answer.status for path in ("/v1/auth/me", "/v1/projects") for answer in _many(own, path, source)}
    assert seen == {401}
    for headers in ({}, {"x-forwarded-for": "10.1.2.3"}, {"x-real-ip": "10.1.2.3"}, {"forwarded": "for=10.1.2.3"}):
        assert send(own, "GET", "/v1/nope", None, headers, source).status == 429


def test_another_spelling_of_a_path_or_a_query_does_not_evade_the_limit(own: Stack) -> None:
    source = "127.0.0.19"
    for path in ("/%68ealth", "/x/../health", "/x\\..\\health", "/health?"):
        assert statuses(own, source, 2, path=path) == [200] * 2
    assert statuses(own, source, PER_MINUTE - 8) == [200] * (PER_MINUTE - 8)
    for path in ("/%68ealth", "/health?x=1", "/health"):
        assert statuses(own, source, 1, path=path) == [429]


def _many(stack: Stack, path: str, source: str) -> list[Answer]:
    return [send(stack, "GET", path, source=source) for _ in range(PER_MINUTE // 2)]


def test_ingestion_gets_twice_as_much_in_a_bucket_of_its_own(own: Stack) -> None:
    source = "127.0.0.5"
    assert statuses(own, source, 2 * PER_MINUTE, "POST", "/v1/events") == [401] * 2 * PER_MINUTE
    assert statuses(own, source, 2, "POST", "/v1/events") == [429] * 2
    assert statuses(own, source, PER_MINUTE) == [200] * PER_MINUTE
    assert statuses(own, source, 1, path="/v1/events") == [429]


def test_the_documentation_is_not_limited(own: Stack) -> None:
    assert statuses(own, "127.0.0.6", 2 * PER_MINUTE, path="/docs") == [200] * 2 * PER_MINUTE


def test_who_asks_too_often_is_told_how_long_to_wait(own: Stack) -> None:
    source = "127.0.0.7"
    statuses(own, source, PER_MINUTE)
    answer = send(own, "GET", "/health", source=source)
    assert answer.status == 429
    failure = rest_failure(answer)
    assert failure.reason == Reason.RATE_LIMITED
    assert (failure.retry_after, failure.retry_seconds) == ("60", 60)


def test_grpc_through_the_edge_is_limited_alike_and_the_native_port_is_not(own: Stack, someone: Account) -> None:
    calls = [over_edge_grpc(own, GET_ME, {}, person(someone)) for _ in range(PER_MINUTE + 1)]
    for outcome in (calls[-1], over_grpc_web(own, GET_ME, {}, person(someone))):
        assert outcome.failure is not None
        assert outcome.failure.reason == Reason.RATE_LIMITED
        assert outcome.failure.code == 8
        assert outcome.failure.retry_seconds == 60
    assert over_native_grpc(own, GET_ME, {}, person(someone)).response.email == someone.email


def preflight(stack: Stack, path: str, origin: str, source: str) -> Answer:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key-id",
    }
    return send(stack, "OPTIONS", path, None, headers, source)


@pytest.mark.parametrize("origin", [ALLOWED, ALSO_ALLOWED])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/projects", GET_ME.wire])
def test_the_preflight_of_an_allowed_origin_is_answered(own: Stack, path: str, origin: str) -> None:
    answer = preflight(own, path, origin, "127.0.0.8")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert {"POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    allowed = set(answer.headers["access-control-allow-headers"].split(", "))
    assert {
        "authorization",
        "content-type",
        "x-api-key-id",
        "x-api-timestamp",
        "x-api-signature",
        "x-grpc-web",
    } <= allowed
    assert int(answer.headers["access-control-max-age"]) > 0


def test_preflights_use_up_no_requests(own: Stack) -> None:
    source = "127.0.0.9"
    for _ in range(2 * PER_MINUTE):
        assert preflight(own, "/v1/events", ALLOWED, source).status == 200
    assert statuses(own, source, 1) == [200]


@pytest.mark.parametrize("origin", [FOREIGN, "null", "https://app.example.com.evil.com", "http://app.example.com"])
def test_a_foreign_origin_gets_no_leave(own: Stack, origin: str) -> None:
    source = "127.0.0.10"
    for answer in (
        preflight(own, "/v1/events", origin, source),
        send(own, "GET", "/v1/auth/me", None, {"origin": origin}, source),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_of_an_allowed_origin_may_read_successes_and_errors(own: Stack) -> None:
    for path, status in (("/health", 200), ("/v1/auth/me", 401), ("/v1/nope", 404)):
        answer = send(own, "GET", path, None, {"origin": ALLOWED}, "127.0.0.11")
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"grpc-status", "grpc-message", "retry-after", "x-request-id"} <= exposed


def test_a_page_of_an_allowed_origin_may_read_a_stream(own: Stack, someone: Account) -> None:
    source = "127.0.0.14"
    path = f"/v1/events/stream?project_id={someone.project_id}"
    for origin, leave in ((ALLOWED, ALLOWED), (FOREIGN, None)):
        answer = send(own, "GET", path, None, {"origin": origin, **someone.bearer}, source)
        assert answer.status == 200
        assert answer.headers.get("access-control-allow-origin") == leave
    assert "last-event-id" in preflight(own, path, ALLOWED, source).headers["access-control-allow-headers"]


def test_without_allowed_origins_no_origin_gets_leave(stack: Stack) -> None:
    for answer in (
        preflight(stack, "/v1/events", ALLOWED, "127.0.0.1"),
        send(stack, "GET", "/health", None, {"origin": ALLOWED}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def opens(stack: Stack, source: str, **options: Any) -> int:
    """The status with which an attempt to open a WebSocket is answered."""
    url = f"ws://{stack.edge_target}/ws/projects/x"
    try:
        async with connect(url, local_addr=(source, 0), **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_pages_of_allowed_origins_open_websockets_and_so_do_programs(own: Stack, stack: Stack) -> None:
    source = "127.0.0.12"
    for origin in (ALLOWED, ALSO_ALLOWED, None):
        assert await opens(own, source, origin=origin) == 101
    for origin in (FOREIGN, "null", "https://appxexample.com", f"{ALLOWED}.evil.com"):
        assert await opens(own, source, origin=origin) == 403
    assert await opens(stack, source, origin=FOREIGN) == 101, "nobody said which origins are allowed"


async def test_websockets_are_limited_like_other_calls(own: Stack) -> None:
    source = "127.0.0.13"
    opened = await asyncio.gather(*(opens(own, source) for _ in range(PER_MINUTE)))
    assert opened == [101] * PER_MINUTE
    assert await opens(own, source) == 429

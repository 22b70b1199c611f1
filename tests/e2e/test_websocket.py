"""Streams over WebSocket: what they send, to whom, and what opens them."""

import asyncio
import json
import time
from collections.abc import Callable

import pytest
import requests
from conftest import Account, Stack, new_account
from credentials import Credentials, machine, nobody, person
from outcomes import rest_failure
from sockets import end, events, ingest, listed, opened, path_of, reason_of, receive, socket_at, stream_token
from transports import send
from websockets.exceptions import InvalidStatus

from nimbus_server.errors import Reason

SENT: list[dict[str, object]] = [
    {"name": "page_view", "user_id": "ada", "props": {"page": "/ü", "n": [1, 2.5, None, True]}, "idempotency_key": "k"},
    {"name": "signup", "ts": "2026-01-02T03:04:05Z", "props": {"plan": "pro", "seats": 2}},
    {"name": "signup", "ts": "2026-01-02T03:04:05.678901Z", "user_id": "bob", "props": {"plan": "free"}},
]


async def test_events_are_what_the_list_shows_first_stored_ones_then_live_ones(stack: Stack, account: Account) -> None:
    ingest(stack, account, SENT)
    async with opened(stack, account, start="earliest") as socket:
        assert await events(socket, 3) == listed(stack, account)
        await asyncio.to_thread(ingest, stack, account, SENT[1:2])
        assert await events(socket, 1) == listed(stack, account)[3:]


async def test_a_socket_goes_on_behind_the_position_of_the_one_before(stack: Stack, account: Account) -> None:
    async with opened(stack, account) as socket:
        await asyncio.to_thread(ingest, stack, account, SENT)
        position = (await receive(socket))["position"]
    await asyncio.to_thread(ingest, stack, account, [{"name": f"n{i}"} for i in range(700)])
    async with opened(stack, account, after_seq=position) as socket:
        got = await events(socket, 703 - int(position))
    assert [int(event["seq"]) for event in got] == list(range(int(position) + 1, 704))


async def test_a_silent_stream_says_where_it_is_within_heartbeat_seconds(stack: Stack, account: Account) -> None:
    async with opened(stack, account, heartbeat_seconds=2, name="signup") as socket:
        await asyncio.to_thread(ingest, stack, account, SENT[:1])
        started = time.monotonic()
        beats = [await receive(socket), await receive(socket)]
        assert time.monotonic() - started < 2 * 2 + 1
    assert beats[-1] == {"type": "position", "position": "1"}


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"name": ["signup", "nope"]}, [2, 3]),
        ({"user_id": "bob"}, [3]),
        ({"props": json.dumps({"plan": "pro"})}, [2]),
        ({"name": ["signup"], "props": "{}", "since": "2020-01-01T00:00:00Z"}, [2, 3]),
    ],
)
async def test_filters_let_through_what_matches(
    stack: Stack, account: Account, query: dict[str, object], seqs: list[int]
) -> None:
    ingest(stack, account, SENT)
    beginning = {} if "since" in query else {"after_seq": 0}
    async with opened(stack, account, **beginning, **query) as socket:
        assert [int(event["seq"]) for event in await events(socket, len(seqs))] == seqs
        await asyncio.to_thread(ingest, stack, account, [SENT[2] | {"name": "signup", "props": {"plan": "pro"}}])
        assert [int(event["seq"]) for event in await events(socket, 1)] == [4]


@pytest.mark.parametrize("who", [person, machine])
async def test_a_token_opens_sockets_for_a_person_and_for_a_key(
    stack: Stack, account: Account, who: Callable[[Account], Credentials]
) -> None:
    token = stream_token(stack, account, who(account))
    async with opened(stack, account, nobody, token=token) as socket:
        await asyncio.to_thread(ingest, stack, account, SENT)
        assert len(await events(socket, 3)) == 3
    written = "".join(log.read_text(errors="replace") for log in (stack.data_dir / "logs").iterdir())
    assert token not in written
    assert token.rpartition(".")[2] not in written


async def test_a_person_opens_sockets_by_their_access_token(stack: Stack, account: Account) -> None:
    async with opened(stack, account, person(account)) as socket:
        await asyncio.to_thread(ingest, stack, account, SENT)
        assert len(await events(socket, 3)) == 3


async def test_a_long_filter_fits_into_the_address(stack: Stack, account: Account) -> None:
    ingest(stack, account, [{"name": "x", "props": {"long": "é" * 4000}}])
    props = json.dumps({"long": "é" * 4000}, ensure_ascii=False)
    async with opened(stack, account, start="earliest", props=props) as socket:
        assert len(await events(socket, 1)) == 1


async def test_a_consumer_goes_on_where_it_acknowledged(stack: Stack, account: Account) -> None:
    ingest(stack, account, SENT)
    async with opened(stack, account, start="earliest", consumer="billing") as socket:
        await events(socket, 3)
        await socket.send('{"type": "ack", "position": "1"}')
        await socket.send('{"type": "ack", "position": 2}')
        consumers = f"{stack.url}/v1/projects/{account.project_id}/consumers"
        while requests.get(consumers, headers=account.bearer, timeout=30).json()["items"][0]["position"] != "2":  # noqa: ASYNC110, ASYNC210
            await asyncio.sleep(0.01)
        await socket.send('{"type": "ack", "position": "4"}')
        code, error = await end(socket)
        assert (code, reason_of(error)) == (4400, Reason.POSITION_AHEAD)
    async with opened(stack, account, consumer="billing", consumer_conflict="take_over") as socket:
        assert [int(event["seq"]) for event in await events(socket, 1)] == [3]


async def test_a_consumer_has_one_socket_the_second_is_refused_or_takes_over(stack: Stack, account: Account) -> None:
    async with opened(stack, account, consumer="billing") as first:
        async with socket_at(stack, path_of(account, consumer="billing"), machine(account)) as second:
            code, error = await end(second)
            assert (code, reason_of(error)) == (4409, Reason.CONSUMER_BUSY)
        async with opened(stack, account, consumer="billing", consumer_conflict="take_over"):
            code, error = await end(first)
            assert (code, reason_of(error)) == (4409, Reason.CONSUMER_TAKEN_OVER)


@pytest.mark.parametrize("path", ["/health", "/v1/events/stream", "/docs", "/", "/nimbus.v1.AuthService/GetMe", "/ws"])
async def test_no_other_route_takes_an_upgrade(stack: Stack, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket_at(stack, path, nobody):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["details"][0]["reason"] == Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize("path", ["/ws/", "/ws/nope", "/ws/projects/", "/ws/projects/x/y", "/ws/../health"])
async def test_other_paths_below_lead_nowhere(stack: Stack, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket_at(stack, path, nobody):
            pass
    body = json.loads(refused.value.response.body)
    assert refused.value.response.status_code in {403, 404}
    assert body["details"][0]["reason"] in {Reason.ROUTE_NOT_FOUND, Reason.REQUEST_UNPARSABLE}


def test_a_call_that_is_no_upgrade_is_told_so(stack: Stack, account: Account) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = send(stack, method, path_of(account), None, account.bearer)
        assert answer.status == 400
        if method != "HEAD":
            assert rest_failure(answer).reason == Reason.REQUEST_UNPARSABLE


@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("GET", b"x")])
def test_an_upgrade_that_is_no_handshake_is_told_so(stack: Stack, account: Account, method: str, body: bytes) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    headers = {**account.bearer, **upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    answer = send(stack, method, path_of(account), body, headers)
    # What matters is that nobody tries it again: it looked like a worker that is away.
    assert (answer.status, rest_failure(answer).reason) == (403, Reason.REQUEST_UNPARSABLE)


async def test_errors_are_those_of_rest(stack: Stack, account: Account) -> None:
    stranger = new_account(stack)
    for query, who in (({"after_seq": 7}, machine(account)), ({}, person(stranger)), ({"props": "["}, person(account))):
        params = {"project_id": account.project_id, **query}
        url = requests.Request("GET", f"{stack.url}/v1/events/stream", params=params).prepare().path_url
        rest = send(stack, "GET", url, None, who("GET", url, b""))
        async with socket_at(stack, path_of(account, **query), who) as socket:
            code, error = await end(socket)
        assert error == {"type": "error", **rest.json}
        assert code == 4000 + rest.status

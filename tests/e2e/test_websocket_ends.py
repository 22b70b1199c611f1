"""How streams over WebSocket end: with an error and a code that say why, and so that nothing is lost."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import requests
from conftest import Account, Stack, new_account
from credentials import Credentials, bearer, machine, nobody, person, signed
from sockets import Message, end, events, ingest, opened, path_of, reason_of, receive, socket_at, stream_token
from websockets.exceptions import ConnectionClosed, InvalidStatus

from nimbus_server.errors import Reason

WRONG = [
    ("heartbeat_seconds=16", Reason.FIELD_INVALID),
    ("heartbeat_seconds=x", Reason.FIELD_INVALID),
    ("after_seq=-1", Reason.FIELD_INVALID),
    ("after_seq=1&after_seq=1", Reason.FIELD_INVALID),
    ("after_seq=1&start=earliest", Reason.FIELD_INVALID),
    ("since=yesterday", Reason.FIELD_INVALID),
    ("start=middle", Reason.FIELD_INVALID),
    ("user_id=", Reason.FIELD_REQUIRED),
    ("consumer=", Reason.FIELD_REQUIRED),
    ("consumer=" + "x" * 201, Reason.FIELD_TOO_LONG),
    ("consumer=..", Reason.FIELD_INVALID),
    ("consumer=a&token=b", Reason.FIELD_INVALID),
    ("consumer=a&consumer_conflict=maybe", Reason.FIELD_INVALID),
    ("props=" + quote(json.dumps({"n": list(range(20))})), Reason.FIELD_TOO_LONG),
    ("&".join(f"name={i}" for i in range(101)), Reason.FIELD_TOO_LONG),
    ("&".join(f"name={i}" for i in range(201)), Reason.REQUEST_UNPARSABLE),
    ("name=%ff", Reason.REQUEST_UNPARSABLE),
    ("nope=1", Reason.FIELD_UNKNOWN),
    ("afterSeq=1", Reason.FIELD_UNKNOWN),
    ("project_id=x", Reason.FIELD_UNKNOWN),
]


async def ends_of(stack: Stack, calls: Iterable[tuple[str, Credentials]]) -> list[tuple[int | None, Message]]:
    """How sockets at these paths end, opened side by side: the edge takes a second to close one."""

    async def end_of(path: str, who: Credentials) -> tuple[int | None, Message]:
        async with socket_at(stack, path, who) as socket:
            return await end(socket)

    return await asyncio.gather(*(end_of(path, who) for path, who in calls))


async def test_a_wrong_query_is_told_with_its_parameter(stack: Stack, account: Account) -> None:
    paths = [f"{path_of(account)}?{query}" for query, _ in WRONG]
    ends = await ends_of(stack, [(path, machine(account)) for path in paths])
    assert [(4400, reason) for _, reason in WRONG] == [(code, reason_of(error)) for code, error in ends]
    for (query, reason), (_, error) in zip(WRONG, ends, strict=True):
        fields = [v["field"] for detail in error["details"] for v in detail.get("field_violations", ())]
        assert reason is Reason.REQUEST_UNPARSABLE or fields[0] in query or fields == ["start"]


STRANGERS: list[tuple[Callable[[Account], Credentials], int, Reason]] = [
    (lambda _: nobody, 4401, Reason.CREDENTIALS_MISSING),
    (lambda _: bearer("a.b.c"), 4401, Reason.TOKEN_INVALID),
    (lambda of: bearer(of.refresh_token), 4401, Reason.TOKEN_INVALID),
    (lambda of: signed(of.api_key_id, "another secret"), 4403, Reason.SIGNATURE_MISMATCH),
    (lambda of: signed(of.api_key_id, of.api_key_secret, str(time.time() - 302)), 4401, Reason.SIGNATURE_STALE),
    (lambda of: lambda method, path, body: machine(of)(method, path + "x", body), 4403, Reason.SIGNATURE_MISMATCH),
]


async def test_who_has_no_good_credentials_is_told_why(stack: Stack, account: Account) -> None:
    ends = await ends_of(stack, [(path_of(account), who(account)) for who, _, _ in STRANGERS])
    assert [(code, reason) for _, code, reason in STRANGERS] == [(code, reason_of(error)) for code, error in ends]


async def test_a_socket_of_another_project_is_refused(stack: Stack, account: Account) -> None:
    owner = new_account(stack)
    of_person = path_of(owner, token=stream_token(stack, account, person(account)))
    of_key = path_of(owner, token=stream_token(stack, account, machine(account)))
    calls = [
        (path_of(owner), person(account)),
        (path_of(owner), machine(account)),
        (of_person, nobody),
        (of_key, nobody),
        ("/ws/projects/x", person(account)),
    ]
    assert [code for code, _ in await ends_of(stack, calls)] == [4404, 4403, 4404, 4403, 4400]


async def rest(method: str, url: str, account: Account) -> None:
    """A call of a person's that must succeed."""
    response = await asyncio.to_thread(requests.request, method, url, headers=account.bearer, timeout=30)
    assert response.ok, response.text


WITHDRAWN = [
    (machine, "POST /v1/projects/{}/rotate-key", 4401, {Reason.API_KEY_UNKNOWN}),
    (person, "POST /v1/auth/logout", 4401, {Reason.SESSION_ENDED}),
    (person, "DELETE /v1/projects/{}", 4404, {Reason.PROJECT_NOT_FOUND}),
]


@pytest.mark.parametrize("with_token", [False, True])
@pytest.mark.parametrize(("who", "call", "code", "reasons"), WITHDRAWN, ids=[call for _, call, _, _ in WITHDRAWN])
async def test_access_that_is_withdrawn_ends_a_socket(
    stack: Stack,
    account: Account,
    who: Callable[[Account], Credentials],
    call: str,
    code: int,
    reasons: set[Reason],
    with_token: bool,
) -> None:
    token = {"token": stream_token(stack, account, who(account))} if with_token else {}
    async with opened(stack, account, nobody if with_token else who(account), **token) as socket:
        method, _, path = call.format(account.project_id).partition(" ")
        await rest(method, stack.url + path, account)
        closed, error = await end(socket)
    assert closed == code
    assert reason_of(error) in reasons


BAD_MESSAGES = ("", "x", "[]", '{"type": "ack"}', '{"type": "ack", "position": "-1"}', b"\0")


async def test_what_a_client_may_not_send_ends_its_socket(stack: Stack, account: Account) -> None:
    async def end_after(number: int) -> tuple[int | None, Reason | str]:
        async with opened(stack, account, consumer=f"consumer {number}") as socket:
            await socket.send(BAD_MESSAGES[number])
            code, error = await end(socket)
            return code, reason_of(error)

    ends = await asyncio.gather(*map(end_after, range(len(BAD_MESSAGES))))
    assert ends == [(4400, Reason.REQUEST_UNPARSABLE)] * len(BAD_MESSAGES)


async def test_only_a_consumer_acknowledges_and_only_short_messages_are_read(stack: Stack, account: Account) -> None:
    async with opened(stack, account) as socket:
        await socket.send('{"type": "ack", "position": "0"}')
        assert (await end(socket))[0] == 4400
    async with opened(stack, account) as socket:
        await socket.send("x" * 5000)
        assert (await end(socket))[0] == 1009


async def test_one_that_sends_nothing_but_pings_is_cut_off(stack: Stack, account: Account) -> None:
    async with opened(stack, account) as socket:
        for _ in range(100):
            await socket.ping()
        with pytest.raises(ConnectionClosed):
            await receive(socket)
    async with opened(stack, account) as socket:
        assert await (await socket.ping()) > 0


async def test_one_who_reads_nothing_is_in_nobodys_way(stack: Stack, account: Account) -> None:
    big: dict[str, object] = {"name": "big", "props": {"long": "x" * 10_000}}
    idler = socket_at(stack, path_of(account), machine(account), max_queue=1, close_timeout=0)
    async with opened(stack, account) as reader, idler:
        for _ in range(5):
            await asyncio.to_thread(ingest, stack, account, [big] * 500)
            assert len(await events(reader, 500)) == 500


async def test_a_restart_of_the_workers_loses_and_repeats_nothing(scratch: Path) -> None:
    stack = Stack(scratch / "data").start()
    try:
        account = new_account(stack)
        codes, seen, wanted = set(), [0], 0
        reading = asyncio.create_task(_follow(stack, account, seen, codes))
        for number in range(2):
            worker = await asyncio.to_thread(_worker, stack, number)
            worker.send_signal(signal.SIGTERM)
            while f"Worker {number} is back" not in "".join(stack.lines):
                await asyncio.to_thread(ingest, stack, account, [{"name": "n"}] * 10)
                wanted += 10
        while seen[-1] < wanted:
            assert not reading.done()
            await asyncio.sleep(0.05)
        reading.cancel()
    finally:
        assert await asyncio.to_thread(stack.stop) == 0
    assert seen == list(range(wanted + 1))
    assert 1012 in codes


async def _follow(stack: Stack, account: Account, seen: list[int], codes: set[int | None]) -> None:
    """Read the log into `seen`, on a new socket whenever one ends."""
    while True:
        try:
            async with opened(stack, account, after_seq=seen[-1]) as socket:
                try:
                    while True:
                        seen += [int(event["seq"]) for event in (await receive(socket)).get("events", ())]
                except ConnectionClosed:
                    codes.add(socket.close_code)
        except InvalidStatus as refused:
            if refused.response.status_code != 503:
                raise


def _worker(stack: Stack, number: int) -> psutil.Process:
    assert stack.process is not None
    children = psutil.Process(stack.process.pid).children(recursive=True)
    (found,) = (child for child in children if re.search(rf"worker-{number}\.sock", " ".join(child.cmdline())))
    return found

"""What a question may take, and what stops it: its caller, its deadline, its neighbours, and too little memory."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import psutil
import pytest
import requests
from asking import ask, fill, names, until_it_answers
from conftest import Account, Stack, new_account, own_stack
from credentials import person
from surface import RPCS
from test_overload import retry_seconds
from test_supervision import processes, wait_until
from transports import encoded, over_rest

from nimbus_server.analyst.turns import RUNNING_PER_PROJECT, WAITING_PER_PROJECT
from nimbus_server.errors import Reason

EVENTS = 200_000
# A regular expression that takes long, some 10 µs for each event.
HARD = "(0|1|2)[0-9a-f]{16}Z"
# 0.2 where the analyst, which gives way to all others, has a processor for itself.
STOP_SECONDS = 0.4


def matching(*patterns: str) -> dict[str, object]:
    """A question about the events whose `props.long` matches."""
    condition = {"property": "props.long", "operator": "CONDITION_OPERATOR_MATCHES", "values": patterns}
    return {"range": {"last": "30d"}, "series": [{"selector": {"filter": {"condition": condition}}}]}


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    with own_stack({"NIMBUS_WORKERS": "1", "NIMBUS_ANALYST_MEMORY": "48MB"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def rich(own: Stack) -> Account:
    """Someone with a log that takes long to ask about."""
    account = new_account(own)
    until_it_answers(own, account)
    fill(own, account, EVENTS)
    return account


def call(
    channel: grpc.aio.Channel, account: Account, seconds: float, rpc: str = "QueryTrend", **fields: object
) -> grpc.aio.UnaryUnaryCall:
    fields = fields or (matching(HARD) if rpc == "QueryTrend" else {})
    which = RPCS[f"AnalysisService.{rpc}"]
    body = encoded(which, {"project_id": account.project_id, **fields})
    headers = tuple(person(account)("POST", which.wire, body).items())
    return channel.unary_unary(which.wire)(body, timeout=seconds, metadata=headers)


def ends(stack: Stack) -> list[dict[str, object]]:
    """How calls ended that did not go well, by the analyst's log."""
    lines = (json.loads(line) for line in stack.log("analyst").splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == "call"]


def at_work(stack: Stack) -> bool:
    """Whether the analyst has used the processor for a tenth of a second from now on."""
    (process,) = processes(stack, "analyst.sock --data-dir")
    before = process.cpu_times().user
    wait_until(lambda: process.cpu_times().user > before + 0.1)
    return True


async def test_a_question_whose_caller_goes_away_stops_at_once(own: Stack, rich: Account) -> None:
    before = len(ends(own))
    async with grpc.aio.insecure_channel(own.grpc_target) as channel:
        asked = call(channel, rich, 60)
        running = asyncio.ensure_future(asked.code())
        await asyncio.to_thread(at_work, own)
        assert not running.done()
        gone_at = datetime.now(UTC)
        asked.cancel()
        assert await running is grpc.StatusCode.CANCELLED
        await asyncio.to_thread(wait_until, lambda: len(ends(own)) > before)
    (end,) = ends(own)[before:]
    assert end["code"] == "CANCELLED"
    took = datetime.fromisoformat(str(end["timestamp"])) - gone_at
    assert took.total_seconds() < STOP_SECONDS


async def test_a_question_that_takes_longer_than_it_was_given_stops_at_once(own: Stack, rich: Account) -> None:
    before = len(ends(own))
    async with grpc.aio.insecure_channel(own.grpc_target) as channel:
        started = time.monotonic()
        assert await call(channel, rich, 1).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 1 + STOP_SECONDS
        await asyncio.to_thread(wait_until, lambda: len(ends(own)) > before)
    (end,) = ends(own)[before:]
    assert float(str(end["ms"])) / 1000 < 1 + STOP_SECONDS


def test_a_rest_caller_that_hangs_up_stops_its_question(own: Stack, rich: Account) -> None:
    before = len(ends(own))
    url = f"{own.url}/v1/projects/{rich.project_id}/trend"
    with pytest.raises(requests.Timeout):
        requests.post(url, json=matching(HARD), headers=rich.bearer, timeout=0.7)
    wait_until(lambda: len(ends(own)) > before)
    assert float(str(ends(own)[before]["ms"])) / 1000 < 0.7 + STOP_SECONDS + 0.3


async def test_one_question_more_than_may_wait_is_refused_with_when_to_come_back(own: Stack, rich: Account) -> None:
    most = RUNNING_PER_PROJECT + WAITING_PER_PROJECT
    other = new_account(own)
    async with grpc.aio.insecure_channel(own.grpc_target) as channel:
        calls = [call(channel, rich, 5) for _ in range(most + 2)]
        endings = [asyncio.ensure_future(one.code()) for one in calls]
        done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        assert {ending.result() for ending in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        # Nor do others wait for a project that has all that it may.
        assert await call(channel, other, 5, "ListEventNames").code() is grpc.StatusCode.OK
        assert sum(ending.done() for ending in endings) == 2
        for one in calls:
            one.cancel()
        codes = Counter([(await ending).name for ending in endings])
        assert codes["RESOURCE_EXHAUSTED"] == 2, codes
        for one in calls:
            if await one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                assert retry_seconds(await one.trailing_metadata()) > 0
                assert "stored" not in await one.details()
    until_it_answers(own, rich)


def test_a_question_that_needs_more_memory_than_there_is_says_so_and_the_next_one_is_answered(own: Stack) -> None:
    account = new_account(own)
    fill(own, account, 30_000, md5s=300)
    (process,) = processes(own, "analyst.sock --data-dir")
    for transport in (over_rest, None):
        ways = (transport,) if transport else ()
        failure = ask(own, account, "ListPropertyValues", *ways, property="props.long").failure
        assert failure is not None
        assert failure.reason == Reason.QUESTION_TOO_LARGE
        assert "memory" in failure.message
    assert sum(names(own, account).values()) == 30_000
    assert processes(own, "analyst.sock --data-dir") == [process]
    assert process.memory_info().rss < 700 * 1000**2


def test_the_analyst_gives_way_to_other_processes(own: Stack) -> None:
    (process,) = processes(own, "analyst.sock --data-dir")
    assert process.nice() == 10
    (worker,) = processes(own, "worker-0.sock")
    assert worker.nice() == psutil.Process().nice()


async def test_those_who_wait_for_a_position_hold_up_no_other_question(own: Stack, rich: Account) -> None:
    far = {"range": {"last": "1d"}, "series": [{}], "min_position": 10**15}
    async with grpc.aio.insecure_channel(own.grpc_target) as channel:
        waiting = [call(channel, rich, 30, **far) for _ in range(RUNNING_PER_PROJECT + WAITING_PER_PROJECT + 1)]
        done, _ = await asyncio.wait(
            [asyncio.ensure_future(one.code()) for one in waiting], return_when="FIRST_COMPLETED"
        )
        # As many wait as may.
        assert {await one for one in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await call(channel, rich, 30, "ListEventNames")
        for one in waiting:
            one.cancel()

"""`subscribe` of the Python client against the real stack: exactly the log, and what ends it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from conftest import Account, Stack
from subscribing import PATIENT, ingesting, key, read_on, send, table, take

from nimbus_client import AsyncNimbus, Event, Nimbus, NimbusError, StoredEvent


@pytest.fixture
async def nimbus(stack: Stack, account: Account) -> AsyncIterator[AsyncNimbus]:
    async with AsyncNimbus(stack.grpc_target, retry=PATIENT, **key(account)) as client:
        yield client


# --- what is read ---


async def test_an_event_comes_as_it_was_sent(stack: Stack, account: Account, nimbus: AsyncNimbus) -> None:
    sent = Event("sign up", "ü", {"n": 2**60, "deep": {"list": [1.5, None]}}, idempotency_key="k")
    send(stack, account, sent, Event("bare"))
    whole, bare = await take(nimbus.subscribe(start="earliest"), 2)
    assert (whole.seq, whole.name, whole.user_id, whole.props) == (1, sent.name, sent.user_id, sent.props)
    assert (whole.ts, whole.idempotency_key) == (sent.ts, "k")
    assert abs((whole.received_at - datetime.now(UTC)).total_seconds()) < 60
    assert (bare.seq, bare.user_id, bare.props) == (2, None, {})


async def test_starts_and_filters(stack: Stack, account: Account, nimbus: AsyncNimbus) -> None:
    before = datetime.now(UTC)
    send(stack, account, *(Event("ab"[n % 2], f"u{n % 3}", {"plan": "pro", "n": n}) for n in range(12)))
    assert [e.seq for e in await take(nimbus.subscribe(after_seq=9), 3)] == [10, 11, 12]
    assert (await anext(nimbus.subscribe(since=before))).seq == 1
    some = nimbus.subscribe(start="earliest", names="a", user_id="u0", props={"plan": "pro"})
    assert [e.props["n"] for e in await take(some, 2)] == [0, 6]
    assert some.position == 12

    latest = nimbus.subscribe()
    with pytest.raises(TimeoutError):  # nothing yet; by then it knows where it starts
        async with asyncio.timeout(0.5):
            await anext(latest)
    assert latest.position == 12
    send(stack, account, Event("new"))
    assert (await anext(latest)).seq == 13


async def test_several_subscribers_see_exactly_the_log_while_it_grows(
    stack: Stack, account: Account, nimbus: AsyncNimbus
) -> None:
    seen: list[list[StoredEvent]] = [[], [], []]
    subscriptions = [nimbus.subscribe(start="earliest") for _ in seen]
    with ingesting(stack.grpc_target, account):
        await asyncio.gather(*(read_on(each, got, 500) for each, got in zip(subscriptions, seen, strict=True)))
    log = table(stack, account)[:500]
    assert [seq for seq, _ in log] == list(range(1, 501))
    for got in seen:
        assert [(event.seq, event.idempotency_key) for event in got] == log


def test_the_client_for_threads_reads_the_same(stack: Stack, account: Account) -> None:
    send(stack, account, *(Event("tick", props={"n": n}) for n in range(1_200)))
    with Nimbus(stack.grpc_target, **key(account)) as nimbus:
        with nimbus.subscribe(start="earliest", consumer="c") as events:
            assert [next(events).props["n"] for _ in range(600)] == list(range(600))
            events.ack()
        with nimbus.subscribe(consumer="c") as events:
            batch = next(events.batches())
            assert batch.events[0].seq == 601
            assert batch.position == batch.events[-1].seq


# --- what is raised ---


async def reason(subscription: Any) -> str:
    with pytest.raises(NimbusError) as caught:
        async with asyncio.timeout(60):
            await anext(subscription)
    return caught.value.reason


async def test_what_no_retry_mends_is_raised(stack: Stack, account: Account, nimbus: AsyncNimbus) -> None:
    assert await reason(nimbus.subscribe(after_seq=1)) == "POSITION_AHEAD"
    assert await reason(nimbus.subscribe(names="x" * 201)) == "FIELD_TOO_LONG"
    for wrong, expected in (
        ({"project_id": "nonsense"}, "FIELD_INVALID"),
        ({"project_id": "00000000-0000-4000-8000-000000000000"}, "PROJECT_MISMATCH"),
        ({"secret": "nbs_wrong"}, "SIGNATURE_MISMATCH"),
        ({"key_id": "nbk_wrong"}, "API_KEY_UNKNOWN"),
    ):
        async with AsyncNimbus(stack.grpc_target, **(key(account) | wrong)) as stranger:
            assert await reason(stranger.subscribe()) == expected


def rotate_key(account: Account) -> None:
    url = f"{account.url}/v1/projects/{account.project_id}/rotate-key"
    assert requests.post(url, json={}, headers=account.bearer, timeout=10).status_code == 200


async def test_a_key_that_is_rotated_ends_the_iteration(stack: Stack, account: Account, nimbus: AsyncNimbus) -> None:
    send(stack, account, Event("tick"))
    events = nimbus.subscribe(start="earliest")
    await anext(events)
    await asyncio.to_thread(rotate_key, account)
    assert await reason(events) == "API_KEY_UNKNOWN"


async def test_a_consumer_has_one_stream_until_it_is_taken_over(
    stack: Stack, account: Account, nimbus: AsyncNimbus
) -> None:
    send(stack, account, Event("tick"))
    first = nimbus.subscribe(start="earliest", consumer="c")
    assert (await anext(first)).seq == 1
    assert await reason(nimbus.subscribe(consumer="c", deadline_seconds=1)) == "CONSUMER_BUSY"
    async with nimbus.subscribe(consumer="c", take_over=True) as second:
        assert (await anext(second)).seq == 1
        assert await reason(first) == "CONSUMER_TAKEN_OVER"


async def test_consumers_are_listed_rewound_and_forgotten(stack: Stack, account: Account, nimbus: AsyncNimbus) -> None:
    send(stack, account, Event("a"), Event("b"), Event("c"))
    async with nimbus.subscribe(start="earliest", consumer="c") as events:
        await anext(events)
        await events.ack()
        (found,) = await nimbus.consumers()
        assert (found.name, found.position, found.lag, found.active) == ("c", 1, 2, True)
        assert abs((found.acked_at - datetime.now(UTC)).total_seconds()) < 60
    assert (await nimbus.rewind("c", 2)).position == 2
    assert (await nimbus.rewind("c", 0)).lag == 3
    async with nimbus.subscribe(consumer="c") as events:
        assert (await anext(events)).seq == 1
    with Nimbus(stack.grpc_target, **key(account)) as threaded:
        assert [(one.name, one.position) for one in threaded.consumers()] == [("c", 0)]
        assert (threaded.rewind("c", 3).position, threaded.consumers()[0].position) == (3, 3)
        threaded.forget_consumer("c")
        assert threaded.consumers() == []
    with pytest.raises(NimbusError, match="CONSUMER_NOT_FOUND"):
        await nimbus.forget_consumer("c")


async def test_a_server_that_is_away_is_waited_for_as_long_as_asked(account: Account) -> None:
    async with AsyncNimbus("127.0.0.1:1", **key(account)) as nimbus:
        with pytest.raises(NimbusError, match="UNAVAILABLE"):
            await anext(nimbus.subscribe(deadline_seconds=0.5))

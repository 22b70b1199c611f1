"""A subscription of the Python client goes on where it was, whatever dies."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Stack, new_account
from subscribing import PATIENT, ingesting, key, read_on, send, table, take

from nimbus_client import AsyncNimbus, Event, StoredEvent


@pytest.fixture
def own(scratch: Path) -> Iterator[Stack]:
    stack = Stack(scratch / "data").start()
    yield stack
    stack.stop()


def fixed_ports(stack: Stack) -> tuple[str, ...]:
    """Arguments with which it comes back where it was."""
    return ("--http-port", stack.edge_target.split(":")[1], "--grpc-port", stack.grpc_target.split(":")[1])


def killed(stack: Stack, marker: str) -> None:
    assert stack.process is not None
    for child in psutil.Process(stack.process.pid).children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if marker in " ".join(child.cmdline()):
                child.kill()
                child.wait(5)


async def test_it_goes_on_whatever_is_killed_and_when_all_is_started_again(own: Stack) -> None:
    account = new_account(own)
    own.arguments = fixed_ports(own)
    seen: list[list[StoredEvent]] = [[], []]

    async def all_see_more(*subscriptions: Any) -> None:
        await asyncio.gather(*(read_on(each, got, 50) for each, got in zip(subscriptions, seen, strict=True)))

    async with (
        AsyncNimbus(own.grpc_target, retry=PATIENT, **key(account)) as directly,
        AsyncNimbus(own.edge_target, retry=PATIENT, **key(account)) as by_edge,
    ):
        subscriptions = directly.subscribe(), by_edge.subscribe()
        with ingesting(own.grpc_target, account):
            await all_see_more(*subscriptions)
            for victim in ("worker-0.sock", "worker-1.sock", "envoy.yaml", "/bin/postgres -D"):
                await asyncio.to_thread(killed, own, victim)
                await all_see_more(*subscriptions)
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
            await all_see_more(*subscriptions)
    log = dict(table(own, account))
    for got in seen:
        expected = [(seq, log[seq]) for seq in range(got[0].seq, got[-1].seq + 1)]
        assert [(event.seq, event.idempotency_key) for event in got] == expected


async def test_a_consumer_comes_back_where_it_was_after_a_crash(own: Stack) -> None:
    account = new_account(own)
    send(own, account, *(Event("tick") for _ in range(10)))
    async with AsyncNimbus(own.grpc_target, retry=PATIENT, **key(account)) as nimbus:
        async with nimbus.subscribe(start="earliest", consumer="billing", ack_seconds=0) as events:
            assert [e.seq for e in await take(events, 4)] == [1, 2, 3, 4]
        async with nimbus.subscribe(consumer="billing", ack_seconds=None) as events:
            # It was not come back from.
            assert [e.seq for e in await take(events, 3)] == [4, 5, 6]
            # Nobody lets the consumer go: those who come next wait until it lapses.
            for victim in ("worker-0.sock", "worker-1.sock"):
                await asyncio.to_thread(killed, own, victim)
            assert [e.seq for e in await take(events, 4)] == [7, 8, 9, 10]
            send(own, account, Event("tick"))
            # What was not acknowledged comes again over the wire, but not out of the same subscription.
            assert (await anext(events)).seq == 11
            await events.ack()
        send(own, account, Event("tick"))
        assert (await anext(nimbus.subscribe(start="earliest", consumer="billing"))).seq == 12

"""What tests of the client's subscriptions share: events that come, and reading on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from conftest import Account, Stack

from nimbus_client import Event, Nimbus, RetryPolicy, StoredEvent

PATIENT = RetryPolicy(deadline_seconds=60, max_wait_seconds=1)


def key(account: Account) -> dict[str, str]:
    return {"project_id": account.project_id, "key_id": account.api_key_id, "secret": account.api_key_secret}


def send(stack: Stack, account: Account, *events: Event) -> None:
    with Nimbus(stack.grpc_target, **key(account)) as nimbus:
        assert nimbus.send(events).rejected == 0


def table(stack: Stack, account: Account) -> list[tuple[int, str]]:
    """Position and key of every event."""
    with psycopg.connect(stack.dsn()) as connection:
        query = "SELECT seq, idempotency_key FROM events WHERE project_id = %s ORDER BY seq"
        return connection.execute(query, (account.project_id,)).fetchall()


@contextmanager
def ingesting(target: str, account: Account) -> Iterator[None]:
    """Events come all the time."""
    stop = threading.Event()

    def ingest() -> None:
        with Nimbus(target, retry=PATIENT, **key(account)) as nimbus:
            while not stop.is_set():
                nimbus.send([Event("tick", user_id=f"u{n}", props={"n": n}) for n in range(7)])

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def take(events: Any, count: int) -> list[StoredEvent]:
    return [await anext(events) for _ in range(count)]


async def read_on(events: Any, seen: list[StoredEvent], more: int) -> None:
    seen.extend(await take(events, more))

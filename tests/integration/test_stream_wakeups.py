"""Wake-ups from process to process: losing any, or whatever carries them, costs time alone, and it mends itself."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from own_valkey import Valkey
from redis.asyncio import Redis
from storage import append, new_event, new_project, opened, settings_for
from streaming import EARLIEST, Subscriber, running, until

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.notifications import CHANNEL, PostgresBus
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import hub as hubs
from nimbus_server.stream import redis_bus, wakeups
from nimbus_server.stream.hub import Hub
from nimbus_server.stream.redis_bus import RedisBus
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.wakeups import Bus, Wakeups

LISTENERS = "FROM pg_stat_activity WHERE application_name = 'nimbus listener' AND datname = current_database()"


@dataclass
class Process:
    """What of a worker wakes and is woken; `heard` counts what came from others, or of a new connection."""

    hub: Hub
    wakeups: Wakeups
    log: EventLog
    heard: int = field(default=0)

    async def commit(self, project: UUID) -> None:
        await append(self.log, project, [new_event()])
        self.wakeups.committed([project])


@dataclass
class Pair:
    """Two processes over one database, and a reader of a log in the second."""

    writer: Process
    reader: Process
    project: UUID
    subscriber: Subscriber
    committed: int = 0

    async def commit(self) -> None:
        self.committed += 1
        await self.writer.commit(self.project)

    async def arrives(self, seconds_max: float = 10) -> None:
        await until(lambda: self.subscriber.position == self.committed, seconds_max)

    async def both_listen(self, times: int = 1) -> None:
        await until(lambda: min(self.writer.heard, self.reader.heard) >= times)


def process(database: Database, bus: Bus) -> Process:
    hub = Hub(LogReader(database))
    made = Process(hub, Wakeups(hub, bus), EventLog(database, Partitions(database)))
    wake_all = hub.wake_all

    def counted() -> None:
        made.heard += 1
        wake_all()

    hub.wake_all = counted  # type: ignore[method-assign]
    return made


@pytest.fixture(params=["NOTIFY", "Valkey"])
async def pair(
    request: pytest.FixtureRequest, dsn: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    # So that nothing but a wake-up brings an event along.
    monkeypatch.setattr(hubs, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(wakeups, "RETRY_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(Database(settings_for(dsn))))
        if request.param == "Valkey":
            request.node.valkey = stack.enter_context(Valkey(scratch))
            buses: list[Bus] = [RedisBus(request.node.valkey.url, 4) for _ in range(2)]
        else:
            buses = [PostgresBus(settings_for(dsn)) for _ in range(2)]
        writer, reader = (process(database, bus) for bus in buses)
        for one in (writer, reader):
            stack.push_async_callback(one.wakeups.close)
            await stack.enter_async_context(running(one.hub, one.wakeups))
        project = await new_project(database)
        subscriber = Subscriber(reader.hub, project).open(EARLIEST).let()
        stack.push_async_callback(subscriber.close)
        made = Pair(writer, reader, project, subscriber)
        await made.both_listen()
        await until(lambda: subscriber.told)
        yield made


async def test_an_event_reaches_the_subscriber_of_another_process_without_a_poll(pair: Pair) -> None:
    for _ in range(20):
        await pair.commit()
        await pair.arrives()
    await asyncio.gather(*(pair.commit() for _ in range(20)))
    await pair.arrives()
    assert pair.subscriber.seen == list(range(1, 41))


async def test_what_others_say_on_the_channel_does_no_harm(
    request: pytest.FixtureRequest, pair: Pair, dsn: str
) -> None:
    for rubbish in ("", "rubbish", "\udce9", "0" * 33, uuid4().hex, "é"):
        if valkey := getattr(request.node, "valkey", None):
            async with Redis.from_url(valkey.url) as other:
                await other.publish(redis_bus.CHANNEL, rubbish.encode(errors="surrogateescape"))
        elif rubbish.isprintable():
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, rubbish))
    await pair.commit()
    await pair.arrives()


@pytest.mark.parametrize("pair", ["NOTIFY"], indirect=True)
async def test_a_listener_that_is_cut_off_comes_back_and_looks_for_what_it_missed(pair: Pair, dsn: str) -> None:
    for times in (2, 3):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
            await pair.commit()
        await pair.both_listen(times)
        await pair.arrives()
        await pair.commit()
        await pair.arrives()


@pytest.mark.parametrize("pair", ["Valkey"], indirect=True)
async def test_a_valkey_that_is_killed_costs_time_alone(request: pytest.FixtureRequest, pair: Pair) -> None:
    for times in (2, 3):
        request.node.valkey.kill()
        for _ in range(3):
            await pair.commit()
        # Polling goes on, and its own process hears of it in any case.
        own = Subscriber(pair.writer.hub, pair.project).open(EARLIEST).let()
        await own.reaches(pair.committed)
        await pair.commit()
        await own.reaches(pair.committed)
        await own.close()
        await pair.reader.hub._look()
        await pair.arrives()
        await pair.commit()
        request.node.valkey.start()
        await pair.both_listen(times)
        await pair.arrives()
        await pair.commit()
        await pair.arrives()


@pytest.mark.parametrize("pair", ["NOTIFY"], indirect=True)
async def test_wake_ups_that_cannot_be_sent_are_found_out_by_polling(
    pair: Pair, dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("nimbus_server.postgres.notifications.NOTIFY", "SELECT missing(%s) FROM unnest(%s::text[])")
    await pair.commit()
    await pair.reader.hub._look()
    await pair.arrives()
    monkeypatch.undo()
    await pair.commit()
    await pair.arrives()

"""Streams of a process: what they hold is let go whenever their readers go, and nobody's trouble is another's."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

import orjson
import pytest
from psycopg import sql
from storage import append, new_event, new_project, opened, settings_for
from streaming import EARLIEST, Subscriber, check_told, running_hub, shape, until

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import hub as hubs
from nimbus_server.stream import subscription as subscriptions
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.page import BATCH_EVENTS_MAX
from nimbus_server.stream.store import Found, LogReader

NOBODY = EventFilter(user_id="nobody")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def log(database: Database) -> EventLog:
    return EventLog(database, Partitions(database))


@pytest.fixture
async def project(database: Database) -> UUID:
    return await new_project(database)


async def test_readers_that_go_away_at_any_moment_leave_nothing_behind(
    database: Database, log: EventLog, project: UUID
) -> None:
    await append(log, project, [new_event() for _ in range(50)])
    async with running_hub(database) as hub:
        stay = Subscriber(hub, project).open(EARLIEST).let()
        readers = [Subscriber(hub, random.choice([project, await new_project(database)])) for _ in range(60)]
        for turns, reader in enumerate(readers):
            reader.open(random.choice([EARLIEST, Start()])).let(turns % 7)
            # After so many turns of the event loop: at every point at which it may be.
            for _ in range(turns):
                await asyncio.sleep(0)
            await reader.close()
            await append(log, project, [new_event()])
            hub.wake(project)
        await stay.reaches(110)
        assert (list(hub._channels), hub._count, len(hub.subscriptions)) == ([project], 1, 1)
        await stay.close()
        assert (hub._channels, hub._count) == ({}, 0)
        assert hub._replays._value == hubs.REPLAYS_MAX


async def test_a_hundred_filters_on_one_log_each_have_their_own(
    database: Database, log: EventLog, project: UUID
) -> None:
    async with running_hub(database) as hub:
        readers = [
            Subscriber(hub, project, shape(EventFilter(props_json=orjson.dumps({"n": n % 50})), 1 + n)).open(Start())
            for n in range(100)
        ]
        await until(lambda: all(reader.let().told for reader in readers))
        for _ in range(4):
            await append(log, project, [new_event(props={"n": n}) for n in range(100)])
            hub.wake(project)
        await asyncio.gather(*(reader.reaches(391) for reader in readers))
        for n, reader in enumerate(readers):
            stored = {seq for seq in range(1, 401) if (seq - 1) % 100 == n % 50}
            await until(lambda reader=reader, stored=stored: set(reader.seen) == stored)
            check_told(reader.told, 0, stored)
            await reader.close()


async def test_heartbeats_come_in_time_while_nothing_matches_and_while_the_database_hangs(
    dsn: str, database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, project, [new_event()])
    monkeypatch.setattr(hubs, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.2)
    async with running_hub(database) as hub, opened(Database(settings_for(dsn))) as other:
        waiting = Subscriber(hub, project, shape(NOBODY), 1).open(Start()).let()
        await until(lambda: waiting.told)
        async with other.transaction() as connection:
            await connection.execute("LOCK TABLE streams, events IN ACCESS EXCLUSIVE MODE")
            hub.wake(project)
            # One that replays: opened past the database, as if that had come to hang a moment later.
            replaying = Subscriber(hub, project, shape(NOBODY), 1)
            channel = hub._channels[project]
            channel.feed.start = channel.feed.end = 1
            turns = channel.replays, hub._replays
            one = subscriptions.Subscription(channel.feed, hub._reader, turns, replaying.shape, 0, 1)
            channel.add(one)
            loop = asyncio.get_running_loop()
            async with aclosing(one.messages()) as messages:
                for reader_waits in (lambda: anext(messages),) * 4:
                    told, before = len(waiting.told), loop.time()
                    await reader_waits()
                    assert loop.time() - before < 1.3
                    await until(lambda told=told: len(waiting.told) > told, 1.3)
                # And it ends at once, whatever it waits for.
                one.end(NimbusError(Reason.SESSION_ENDED, "over"))
                with pytest.raises(NimbusError, match="over"):
                    await anext(messages)
            channel.discard(one)
        await waiting.close()


async def test_a_stream_that_is_opened_while_its_worker_stops_is_refused(
    database: Database, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(LogReader(database))
    opening = Subscriber(hub, project).open(Start()).let()
    await asyncio.sleep(0)
    hub.end_all()
    await until(lambda: not opening.is_open)
    assert opening.error
    assert opening.error.reason is Reason.WORKER_UNAVAILABLE
    monkeypatch.setattr(hubs, "SUBSCRIBERS_MAX", 6)  # and half of them for one project
    full = Hub(LogReader(database))
    readers = [Subscriber(full, project).open(Start()).let() for _ in range(9)]
    await until(lambda: sum(not reader.is_open for reader in readers) == 6)
    assert {reader.error.reason for reader in readers if reader.error} == {Reason.OVERLOADED}
    for reader in readers:
        await reader.close()
    assert (full._channels, full._count) == ({}, 0)


async def test_a_feed_gets_over_whatever_happens_to_it(
    database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, failures = LogReader.page, [ZeroDivisionError(), NimbusError(Reason.STORAGE_UNAVAILABLE, "away")]

    async def failing(*args: object) -> object:
        if failures:
            raise failures.pop()
        return await page(*args)

    monkeypatch.setattr(LogReader, "page", failing)
    async with running_hub(database) as hub:
        reader = Subscriber(hub, project).open(Start()).let()
        await until(lambda: reader.told)
        await append(log, project, [new_event()])
        await reader.reaches(1)
        assert not failures
        await reader.close()


async def test_a_feed_whose_cancellation_is_lost_ends_with_its_last_reader(
    database: Database, log: EventLog, project: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, reading = LogReader.page, asyncio.Event()

    async def answering_just_then(*args: Any) -> Found:
        reading.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await page(*args)

    async with running_hub(database) as hub:
        reader = Subscriber(hub, project).open(Start()).let()
        await until(lambda: reader.told)
        await append(log, project, [new_event()])
        monkeypatch.setattr(LogReader, "page", answering_just_then)
        hub.wake(project)
        await reading.wait()
        task = hub._channels[project].task
        await reader.close()
        await until(task.done)


async def test_a_project_that_is_deleted_ends_the_streams_that_look_for_more(
    database: Database, log: EventLog, project: UUID
) -> None:
    # More than a feed begins with.
    await append(log, project, [new_event() for _ in range(BATCH_EVENTS_MAX + 2)])
    async with running_hub(database) as hub:
        live, late = (Subscriber(hub, project).open(start) for start in (Start(), EARLIEST))
        await until(lambda: live.told and late.told)
        async with database.transaction() as connection:
            await connection.execute(sql.SQL("DELETE FROM projects WHERE id = %s"), (project,))
        hub.wake(project)
        await until(lambda: not late.let().is_open)
        assert late.error
        assert late.error.reason is Reason.PROJECT_NOT_FOUND
        # Who waits for what comes is told by those who watch over rights.
        assert live.is_open
        await live.close()
        assert (hub._channels, hub._count) == ({}, 0)

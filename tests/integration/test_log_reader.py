"""Reading a log from anywhere: pages lead on over what does not match and what is gone, and are never large."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from storage import append, new_event, new_project, opened, settings_for

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import store
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.store import WINDOW_POSITIONS, LogReader

EVERYTHING = EventFilter()
SLEEPING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def project_at(database: Database, last_seq: int) -> UUID:
    """A project whose log has been at a position, and has lost all of it to retention."""
    project = await new_project(database)
    async with database.transaction() as connection:
        await connection.execute("UPDATE streams SET last_seq = %s WHERE project_id = %s", (last_seq, project))
    return project


# Where integers of PostgreSQL end, less the window that a page looks through.
EDGES = [2**15 - WINDOW_POSITIONS, 2**15 - 1, 2**31 - WINDOW_POSITIONS, 2**31 - 1, 2**62]


@pytest.mark.parametrize("last_seq", [edge + off for edge in EDGES for off in (-1, 0, 1)])
async def test_a_log_goes_on_at_any_position(database: Database, last_seq: int) -> None:
    project, reader = await project_at(database, last_seq), LogReader(database)
    await append(EventLog(database, Partitions(database)), project, [new_event() for _ in range(3)])
    found = await reader.page(project, last_seq, EVERYTHING, 2)
    assert [event.seq for event in found.events] == [last_seq + 1, last_seq + 2]
    assert (await reader.page(project, found.position, EVERYTHING, 2)).position == last_seq + 3
    # Nothing before it is left: a reader from the beginning is led to it.
    seen, position = [], 0
    while position < last_seq + 3:
        position, before = (found := await reader.page(project, position, EVERYTHING, 2)).position, position
        seen += [event.seq for event in found.events]
        assert position > before
    assert seen == [last_seq + 1, last_seq + 2, last_seq + 3]


async def test_a_page_is_what_there_was_when_it_was_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a partition that is made meanwhile would be left out, while the position goes on behind its events."""
    project, log = await new_project(database), EventLog(database, Partitions(database))
    await append(log, project, [new_event() for _ in range(3)])
    # Between the look at the log's end and the page.
    monkeypatch.setattr(store, "BY_INDEX", "SELECT pg_sleep(0.5)")
    reading = asyncio.create_task(LogReader(database).page(project, 0, EVERYTHING, 10))
    async with database.transaction() as connection:
        while not await (await connection.execute(SLEEPING)).fetchall():
            pass
    await append(log, project, [new_event()])
    found = await reading
    assert ([event.seq for event in found.events], found.position, found.more) == ([1, 2, 3], 3, False)

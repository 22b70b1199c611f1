"""Where streams start, and the pages that they read: no position and no size of events keeps one from the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from uuid import UUID

import orjson
import pytest
from storage import NOW, append, new_event, new_project, opened, settings_for
from streaming import EARLIEST, Subscriber, running_hub, shape

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream import hub as hubs
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.page import MESSAGE_BYTES_MAX
from nimbus_server.stream.store import PAGE_CHARACTERS_MAX, LogReader

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


async def test_what_is_committed_while_the_first_reader_comes_needs_no_other_wake_up(
    database: Database, log: EventLog, project: UUID
) -> None:
    hub = Hub(LogReader(database))
    position = await hub.position_of(project, Start())
    last_seq = hub._reader.last_seq

    async def and_then_one_commits(of: UUID) -> int:
        found = await last_seq(of)
        await append(log, project, [new_event()])
        hub.wake(project)
        return found

    hub._reader.last_seq = and_then_one_commits  # type: ignore[method-assign]
    async with hub.subscribe(project, position, shape(), 15) as one, aclosing(one.messages()) as messages:
        await anext(messages)
        async with asyncio.timeout(5):
            assert orjson.loads(await anext(messages)) == [1, [1]]


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00:00+00:00", "0001-01-01T00:00:09+00:00", NOW.isoformat(), "9999-12-31T00:00:00+00:00"]
)
async def test_a_stream_starts_at_any_time(database: Database, log: EventLog, project: UUID, since: str) -> None:
    hub, at = Hub(LogReader(database)), datetime.fromisoformat(since)
    assert await hub.position_of(project, Start(since=at)) == 0
    for seconds in (-60, -14, -1, 0, 1):
        await append(log, project, [new_event()], NOW + timedelta(seconds=seconds))
    expected = 5 if at > NOW else 3 if at == NOW else 0
    assert await hub.position_of(project, Start(since=at)) == expected
    for position in (6, 2**63 - 1):
        with pytest.raises(NimbusError, check=lambda error: error.reason is Reason.POSITION_AHEAD):
            await hub.position_of(project, Start(after_seq=position))


async def test_large_events_come_in_small_pages_and_none_is_left_out(
    database: Database, log: EventLog, project: UUID
) -> None:
    # Short as JSON, and long once PostgreSQL has written it: 600 zeros for each of the numbers.
    large = {f"n{n}": 1e-300 for n in range(200)}
    await append(log, project, [new_event(props=large if n % 3 else {}) for n in range(60)])
    found = await LogReader(database).page(project, 0, EventFilter(), 500)
    assert sum(len(event.props_json) for event in found.events[:-1]) < PAGE_CHARACTERS_MAX
    assert found.more
    async with running_hub(database) as hub:
        replaying = Subscriber(hub, project).open(EARLIEST).let()
        await replaying.reaches(60)
        await append(log, project, [new_event(props=large) for n in range(60)])
        hub.wake(project)
        async with asyncio.timeout(hubs.POLL_SECONDS * 0.9):
            await replaying.reaches(120)
        assert replaying.seen == list(range(1, 121))
        assert max(len(told.seqs) for told in replaying.told) * 60_000 < 2 * MESSAGE_BYTES_MAX + 60_000
        await replaying.close()

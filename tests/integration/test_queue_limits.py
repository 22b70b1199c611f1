"""A full queue says so at once and recovers; a caller that gives up leaves nothing behind in it."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from storage import log_of, new_event, new_project, opened, origin_of, running_ingest, settings_for
from test_turns import held, send, until_waiting

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.decode import Batch
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.queue import EVENTS_MAX, PROJECT_SHARE
from nimbus_server.postgres.database import Database

FULL = int(EVENTS_MAX * PROJECT_SHARE) // 1000


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


@pytest.fixture
async def ingest(database: Database) -> AsyncIterator[Ingest]:
    """It knows the partition, so that a batch is in the queue as soon as it is submitted."""
    async with running_ingest(database) as running:
        await send(running, await new_project(database))
        yield running


def in_queue(ingest: Ingest) -> tuple[int, int, int, int]:
    queue = ingest._queue
    return queue._use.events, queue._use.size, len(queue._use_of), len(queue.project_ids)


async def fill(ingest: Ingest, project: UUID) -> list[asyncio.Task[object]]:
    """Callers that wait with all that a project may have in the queue."""
    tasks = [asyncio.create_task(send(ingest, project, 1000)) for _ in range(FULL)]
    await asyncio.sleep(0)
    return tasks


async def test_a_project_that_is_full_is_told_at_once_while_others_go_on_and_recovers(
    dsn: str, database: Database, ingest: Ingest
) -> None:
    busy, other = await new_project(database), await new_project(database)
    async with held(dsn, [busy]):
        waiting = await fill(ingest, busy)
        await until_waiting(dsn, 1)
        for _ in range(3):
            with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.OVERLOADED):
                await ingest.submit(busy, Batch([new_event()], []), origin_of())
        assert (await send(ingest, other, 1000)).accepted == 1000
        assert not any(task.done() for task in waiting)
    for task in waiting:
        await task
    assert (await send(ingest, busy)).accepted == 1
    assert len(await log_of(database, busy)) == FULL * 1000 + 1
    assert in_queue(ingest) == (0, 0, 0, 0)


async def test_two_projects_fill_the_queue_for_all(dsn: str, database: Database, ingest: Ingest) -> None:
    busy, other = [await new_project(database) for _ in range(2)], await new_project(database)
    async with held(dsn, busy):
        waiting = [task for project in busy for task in await fill(ingest, project)]
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.OVERLOADED):
            await ingest.submit(other, Batch([new_event()], []), origin_of())
        patient = asyncio.create_task(ingest.submit(other, Batch([new_event()], []), origin_of(), waits_for_room=True))
        await until_waiting(dsn, 2)
        assert not patient.done()
    assert list((await ingest.receipt(await patient)).stored.values()) == [1]
    for task in waiting:
        await task
    assert in_queue(ingest) == (0, 0, 0, 0)


async def test_callers_whose_deadline_passes_leave_nothing_in_the_queue(
    dsn: str, database: Database, ingest: Ingest
) -> None:
    busy = await new_project(database)
    async with held(dsn, [busy]):
        batches = [Batch([new_event()._replace(place=n) for n in range(1000)], []) for _ in range(FULL)]
        results = await asyncio.gather(
            *(ingest.store(busy, batch, origin_of(), 1.0) for batch in batches), return_exceptions=True
        )
        assert {isinstance(e, NimbusError) and e.reason for e in results} == {Reason.STORAGE_UNAVAILABLE}
        assert in_queue(ingest) == (0, 0, 0, 0)
        again = asyncio.create_task(send(ingest, busy))
    assert (await again).accepted == 1


async def test_callers_that_go_away_leave_nothing_in_the_queue(dsn: str, database: Database, ingest: Ingest) -> None:
    busy = await new_project(database)
    async with held(dsn, [busy]):
        waiting = await fill(ingest, busy)
        await until_waiting(dsn, 1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert in_queue(ingest) == (0, 0, 0, 0)
    assert (await send(ingest, busy)).accepted == 1

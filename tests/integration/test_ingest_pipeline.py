"""A batch on its way into the log survives the loss of the database, and is stored once for all its attempts."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from losing import Losing, Loss, let_lose
from storage import NOW, Count, counts_of, log_of, new_project, opened, origin_of, running_ingest, settings_for

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.postgres.database import Database

ORIGIN = origin_of()
BEFORE, AFTER = Loss.BEFORE_COMMIT, Loss.AFTER_COMMIT
# They take two commits, and are begun anew where one of them is lost.
WHILE_PARTITIONS_ARE_MADE = [BEFORE, AFTER, Loss.NONE, BEFORE, Loss.NONE, AFTER, Loss.NONE, Loss.NONE]


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    await let_lose(dsn)
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def store(database: Database, project: UUID, events: list[dict[str, str]], seconds: float) -> Receipt:
    async with running_ingest(database) as ingest:
        return await ingest.store(project, decode_json(events, ORIGIN), ORIGIN, seconds)


@pytest.mark.parametrize("losses", [[BEFORE] * 3, [AFTER] * 3, [BEFORE, AFTER, BEFORE], [AFTER, BEFORE]])
async def test_a_connection_lost_around_the_commit_neither_loses_nor_doubles_events(
    dsn: str, database: Database, losses: list[Loss]
) -> None:
    project = await new_project(database)
    events = [{"name": "unkeyed"}, {"name": "keyed", "idempotency_key": "k"}, {"name": "a third"}]
    async with opened(Losing(dsn, WHILE_PARTITIONS_ARE_MADE + losses)) as losing:
        receipt = await store(losing, project, events, 30.0)
        assert not losing.losses
    # The commit whose answer was lost stored them; the attempt that is answered finds them there.
    assert (receipt.accepted, receipt.duplicates) == ((0, 3) if AFTER in losses else (3, 0))
    assert [(e.seq, e.name) for e in await log_of(database, project)] == [(1, "unkeyed"), (2, "keyed"), (3, "a third")]
    assert await counts_of(database, project) == {Count(NOW, event["name"], 1) for event in events}


async def test_a_database_that_stays_away_is_reported_when_the_deadline_is_near(dsn: str, database: Database) -> None:
    project = await new_project(database)
    async with opened(Losing(dsn, [Loss.NONE] * 2 + [BEFORE] * 1_000)) as losing:
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.STORAGE_UNAVAILABLE):
            await store(losing, project, [{"name": "x"}], 1.5)
        assert len(losing.losses) < 1_000
    assert await log_of(database, project) == []


async def test_a_batch_of_nothing_but_refusals_leaves_nothing_behind(database: Database) -> None:
    project = await new_project(database)
    receipt = await store(database, project, [{"name": ""}, {"nome": "x"}], 30.0)
    assert (receipt.accepted, receipt.duplicates, [r.index for r in receipt.refusals]) == (0, 0, [0, 1])
    assert await log_of(database, project) == []
    assert await counts_of(database, project) == set()

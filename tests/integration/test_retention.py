"""Old months go, and nothing else does: counts, newer events and positions stay, and what went does not come back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from storage import counts_of, log_of, new_project, opened, running_ingest, settings_for

from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Origin
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.postgres.retention import Retention

NOW = datetime(2025, 11, 15, 12, 0, tzinfo=UTC)
DAYS = 60
OLD = [datetime(2009, 5, 1, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC), datetime(2025, 8, 31, 23, 59, tzinfo=UTC)]
KEPT = [datetime(2025, 9, 1, tzinfo=UTC), NOW]


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


def at(moment: datetime) -> Origin:
    """A request that comes at this moment."""
    return Origin(micros(moment), micros(moment), identity.fresh(micros(moment)), repeatable=False)


async def partitions_of(database: Database) -> set[str]:
    async with database.transaction() as connection:
        rows = await connection.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'events'::regclass"
        )
        return {name for (name,) in await rows.fetchall()}


async def test_months_past_the_age_are_dropped_and_counts_and_positions_stay(database: Database) -> None:
    project, partitions = await new_project(database), Partitions(database)
    async with running_ingest(database, partitions) as ingest:
        events = [{"name": "n", "ts": ts.isoformat()} for ts in (*OLD, *KEPT)]
        await ingest.store(project, decode_json(events, at(NOW)), at(NOW))
        await Retention(database, partitions, DAYS).enforce(NOW)
        assert [event.ts for event in await log_of(database, project)] == KEPT
        assert {"events_2025_09", "events_2025_11", "events_before_2020"} <= await partitions_of(database)
        assert not {"events_2024_02", "events_2025_08"} & await partitions_of(database)
        assert {count.minute for count in await counts_of(database, project)} == {*OLD, *KEPT}
        # A month that was known to have a partition gets it again when it is needed again.
        receipt = await ingest.store(project, decode_json([{"name": "n", "ts": OLD[1].isoformat()}], at(NOW)), at(NOW))
        assert list(receipt.stored.values()) == [len(events) + 1]


async def test_a_key_goes_with_its_event(database: Database) -> None:
    project, partitions = await new_project(database), Partitions(database)
    keyed = [{"name": "n", "idempotency_key": "k"}]
    async with running_ingest(database, partitions) as ingest:
        await ingest.store(project, decode_json(keyed, at(OLD[1])), at(OLD[1]))
        await Retention(database, partitions, DAYS).enforce(NOW)
        receipts = [await ingest.store(project, decode_json(keyed, at(NOW)), at(NOW)) for _ in range(2)]
    assert [(r.accepted, r.duplicates) for r in receipts] == [(1, 0), (0, 1)]
    assert [event.ts for event in await log_of(database, project)] == [NOW]


async def test_behind_a_long_query_ingest_does_not_wait_for_long(dsn: str, database: Database) -> None:
    project, partitions = await new_project(database), Partitions(database)
    async with running_ingest(database, partitions) as ingest, await psycopg.AsyncConnection.connect(dsn) as reader:
        await ingest.store(project, decode_json([{"name": "n", "ts": OLD[1].isoformat()}], at(NOW)), at(NOW))
        await reader.execute("SELECT count(*) FROM events")
        enforcing = asyncio.create_task(Retention(database, partitions, DAYS).enforce(NOW))
        receipt = await ingest.store(project, decode_json([{"name": "n"}], at(NOW)), at(NOW))
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.STORAGE_UNAVAILABLE):
            await enforcing
        await reader.rollback()
        assert receipt.accepted == 1
        await Retention(database, partitions, DAYS).enforce(NOW)
    assert [event.ts for event in await log_of(database, project)] == [NOW]


async def test_nothing_goes_a_day_too_early(database: Database) -> None:
    project, partitions = await new_project(database), Partitions(database)
    async with running_ingest(database, partitions) as ingest:
        await ingest.store(project, decode_json([{"name": "n", "ts": OLD[2].isoformat()}], at(NOW)), at(NOW))
    last_day = datetime(2025, 8, 31, tzinfo=UTC) + timedelta(days=DAYS)
    await Retention(database, partitions, DAYS).enforce(last_day)
    assert len(await log_of(database, project)) == 1
    await Retention(database, partitions, DAYS).enforce(last_day + timedelta(days=1))
    assert await log_of(database, project) == []

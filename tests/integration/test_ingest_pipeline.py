"""A batch on its way into the log survives the loss of the database, and is stored once for all its attempts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from storage import NOW, Count, counts_of, log_of, new_project, opened, settings_for

from nimbus_server.errors import NimbusError, Reason, storage_unavailable
from nimbus_server.ingest.decode import Origin, decode_json
from nimbus_server.ingest.pipeline import Ingest, Receipt
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Connection, Database
from nimbus_server.postgres.partitions import Partitions

ORIGIN = Origin(received_at=NOW, default_ts=NOW, signature=None)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


class Breaking(Database):
    """Loses the connection of as many transactions that write as it is told: before their commit, or after it."""

    def __init__(self, dsn: str, *, before_commit: int = 0, after_commit: int = 0) -> None:
        super().__init__(settings_for(dsn))
        self.before_commit = before_commit
        self.after_commit = after_commit

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with super().transaction() as connection:
            yield connection
            cursor = await connection.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            writes = await cursor.fetchone() == (True,)
            if writes and self.before_commit:
                self.before_commit -= 1
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        if writes and self.after_commit:
            self.after_commit -= 1
            raise storage_unavailable()


async def store(database: Database, project: UUID, events: list[dict[str, str]], seconds: float) -> Receipt:
    ingest = Ingest(EventLog(database, Partitions(database)))
    return await ingest.store(project, decode_json(events, ORIGIN), ORIGIN, seconds)


# The first transaction that writes makes the partition.
@pytest.mark.parametrize("losses", [{"before_commit": 3}, {"after_commit": 3}, {"before_commit": 2, "after_commit": 2}])
async def test_a_connection_lost_around_the_commit_neither_loses_nor_doubles_events(
    dsn: str, database: Database, losses: dict[str, int]
) -> None:
    project = await new_project(database)
    events = [{"name": "unkeyed"}, {"name": "keyed", "idempotency_key": "k"}, {"name": "a third"}]
    async with opened(Breaking(dsn, **losses)) as breaking:
        receipt = await store(breaking, project, events, 30.0)
        assert breaking.before_commit == breaking.after_commit == 0
    assert receipt.accepted + receipt.duplicates == 3
    assert [(e.seq, e.name) for e in await log_of(database, project)] == [(1, "unkeyed"), (2, "keyed"), (3, "a third")]
    assert await counts_of(database, project) == {Count(NOW, event["name"], 1) for event in events}


async def test_a_database_that_stays_away_is_reported_when_the_deadline_is_near(dsn: str, database: Database) -> None:
    project = await new_project(database)
    async with opened(Breaking(dsn, before_commit=1_000_000)) as breaking:
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.STORAGE_UNAVAILABLE):
            await store(breaking, project, [{"name": "x"}], 0.8)
    assert await log_of(database, project) == []


async def test_a_batch_of_nothing_but_refusals_needs_no_database(dsn: str) -> None:
    closed = Database(settings_for(dsn))
    receipt = await store(closed, uuid4(), [{"name": ""}, {"nome": "x"}], 1.0)
    assert (receipt.accepted, receipt.duplicates, [r.index for r in receipt.refusals]) == (0, 0, [0, 1])

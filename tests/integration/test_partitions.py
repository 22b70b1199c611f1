"""Partitions: there is one for each month that an event needs, whoever makes it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from storage import NOW, append, log_of, new_event, new_project, opened, settings_for

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres import partitions as partitions_module
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import MONTHS_AHEAD, Partitions, month_of, next_month
from nimbus_server.postgres.session import Connection


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def partitions(database: Database) -> set[str]:
    async with database.transaction() as connection:
        found = await connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass "
            "AND inhrelid <> 'events_before_2020'::regclass"
        )
        return {name for (name,) in await found.fetchall()}


def test_a_month_is_that_of_utc() -> None:
    late = datetime(2025, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1)))
    assert month_of(late) == datetime(2026, 1, 1, tzinfo=UTC)


def test_after_december_comes_january() -> None:
    months = [datetime(2023, 11, 1, tzinfo=UTC)]
    for _ in range(15):
        months.append(next_month(months[-1]))
    assert [f"{month:%Y-%m}" for month in months[:3]] == ["2023-11", "2023-12", "2024-01"]
    assert f"{months[-1]:%Y-%m}" == "2025-02"
    assert all(month == month_of(month) for month in months)


async def test_events_years_apart_make_their_partitions_and_no_others(database: Database) -> None:
    project = await new_project(database)
    days = [datetime(year, month, 28, tzinfo=UTC) for year, month in ((2020, 1), (2022, 2), (2025, 11))]
    assert await append(EventLog(database, Partitions(database)), project, [new_event(day) for day in days]) == 3
    assert await partitions(database) == {"events_2020_01", "events_2022_02", "events_2025_11"}


async def test_old_events_share_one_partition_however_many_months_they_lie_in(database: Database) -> None:
    project = await new_project(database)
    days = [datetime(year, month, 28, tzinfo=UTC) for year in (2000, 2011, 2019) for month in (1, 6, 12)]
    assert await append(EventLog(database, Partitions(database)), project, [new_event(day) for day in days]) == 9
    assert await partitions(database) == set()


async def test_the_edges_of_a_month_belong_to_one_partition_each(database: Database) -> None:
    project = await new_project(database)
    start = datetime(2024, 12, 1, tzinfo=UTC)
    inside, after = [start, next_month(start) - timedelta(microseconds=1)], next_month(start)
    events = [new_event(ts) for ts in (*inside, after)]
    assert await append(EventLog(database, Partitions(database)), project, events) == 3
    assert [row.ts for row in await log_of(database, project)] == [*inside, after]
    async with database.transaction() as connection:
        rows = await (await connection.execute("SELECT ts FROM events_2024_12 ORDER BY ts")).fetchall()
    assert [ts for (ts,) in rows] == inside


async def test_partitions_made_by_many_at_once_are_made_once(dsn: str, database: Database) -> None:
    months = [datetime(2020, month, 1, tzinfo=UTC) for month in range(1, 7)]
    async with opened(Database(settings_for(dsn))) as other:
        workers = [Partitions(pool) for pool in (database, other) * 4]
        await asyncio.gather(*(w.ensure(months[i % 3 : i % 3 + 4]) for i, w in enumerate(workers)))
    assert await partitions(database) == {f"events_2020_{month:02}" for month in range(1, 7)}


async def test_partitions_ahead_go_over_the_end_of_the_year(database: Database) -> None:
    made = Partitions(database)
    await made.ensure_ahead(datetime(2025, 11, 30, 23, 59, tzinfo=UTC))
    await made.ensure_ahead(datetime(2025, 12, 1, tzinfo=UTC))
    months = ["2025_11", "2025_12", "2026_01", "2026_02", "2026_03"]
    assert len(months) == 1 + 1 + MONTHS_AHEAD
    assert await partitions(database) == {f"events_{month}" for month in months}


async def test_a_partition_can_be_made_while_events_are_written_to_another(database: Database) -> None:
    project = await new_project(database)
    await Partitions(database).ensure([month_of(NOW)])
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO events (project_id, ts, id, seq, received_at, name, props) "
            "VALUES (%s, %s, gen_random_uuid(), 1, now(), 'n', '{}')",
            (project, NOW),
        )
        async with asyncio.timeout(10):
            await Partitions(database).ensure([next_month(month_of(NOW))])
    assert await partitions(database) == {"events_2025_11", "events_2025_12"}


@pytest.mark.parametrize(("instead", "seen"), [(None, 1), ("SELECT 1", 0)])
async def test_no_connection_overlooks_a_month_that_was_made_while_it_listed_the_partitions(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch, instead: str | None, seen: int
) -> None:
    """As PostgreSQL has it do, with something else `instead` of what is done about it."""
    project, made = await new_project(database), Partitions(database)
    before, month = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)
    create = partitions_module._create
    looks: list[asyncio.Task[psycopg.AsyncCursor]] = []

    async def create_while_someone_looks(connection: Connection, month: datetime) -> None:
        await create(connection, month)
        # Whoever lists the partitions now waits here for what is new to it of the month before.
        await connection.execute("LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE")
        looks.append(asyncio.create_task(other.execute("EXECUTE look")))
        while not await waits():
            pass

    async def waits() -> bool:
        query = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"
        return bool(await (await observer.execute(query, (other.info.backend_pid,))).fetchall())

    connect = psycopg.AsyncConnection.connect
    async with await connect(dsn, autocommit=True) as other, await connect(dsn, autocommit=True) as observer:
        await other.execute("SELECT count(*) FROM events")
        await made.ensure([before])
        # All that it is going to need of the catalogue, but for that list and what is new of the month before.
        await other.execute("PREPARE look AS SELECT count(*) FROM events")
        await other.execute("SELECT pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'events'::regclass")
        assert not await waits()
        monkeypatch.setattr(partitions_module, "_create", create_while_someone_looks)
        if instead:
            monkeypatch.setattr(partitions_module, "LIST_PARTITIONS_ANEW", instead)
        await made.ensure([month])
        await append(EventLog(database, made), project, [new_event(month)])
        assert await (await looks[0]).fetchone() == (0,)
        assert await (await other.execute("EXECUTE look")).fetchone() == (seen,)


async def test_many_who_need_a_month_at_once_make_it_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, times = Partitions._alone, []

    def noted(self: Partitions) -> AbstractAsyncContextManager[Connection]:
        times.append(1)
        return alone(self)

    monkeypatch.setattr(Partitions, "_alone", noted)
    made, months = Partitions(database), [datetime(2025, month, 1, tzinfo=UTC) for month in (1, 2)]
    await asyncio.gather(*(made.ensure([months[n % 2]]) for n in range(50)))
    assert await partitions(database) == {"events_2025_01", "events_2025_02"}
    # To make it, and to have it listed anew.
    assert len(times) == 2 * len(months)


async def test_no_event_goes_into_a_month_before_it_has_rested(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions_module, "SETTLE_SECONDS", 3600)
    made, month = Partitions(database), datetime(2025, 1, 1, tzinfo=UTC)
    making = asyncio.create_task(made.ensure([month]))
    while await partitions(database) != {"events_2025_01"}:
        pass
    await asyncio.wait([making], timeout=0.5)
    assert not making.done()
    assert not made.known([month])
    making.cancel()

"""What an export publishes is the log up to its mark: nothing is missing, nothing is there twice."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from segment_files import Event, exporter_of, file_rows, files_below, log_rows, put
from storage import new_project, new_user, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.store import ProjectStore
from nimbus_server.segments import disk
from nimbus_server.segments.disk import StorageError
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import LogAwayError


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        await Partitions(pool).ensure_ahead(now() - timedelta(days=40))
        yield pool


async def test_an_export_goes_on_where_the_last_one_ended(dsn: str, database: Database, tmp_path: Path) -> None:
    project, store, exporter = await new_project(database), SegmentStore(database), exporter_of(dsn, database, tmp_path)
    empty = await store.snapshot(project)
    assert (empty.exported, empty.log_end, empty.segments, empty.erasures) == (0, 0, (), ())
    assert await exporter.export(project) == 0

    context = {"page": {"path": "/", "a.b": True}}
    await put(
        database,
        project,
        [Event({"plan": "pro", "n": i, "é": [i, {}]}, context, user_id=f"u{i % 7}") for i in range(500)],
    )
    assert [await exporter.export(project, 300), await exporter.export(project, 300)] == [300, 200]
    await put(database, project, [Event({"plan": 1}, name="later"), Event({"plan": {"name": "pro"}})])
    behind = await store.snapshot(project)
    assert (behind.exported, behind.log_end) == (500, 502)
    assert file_rows(tmp_path, project, behind.segments) == (await log_rows(database, project))[:500]
    assert behind.segments[0].columns == {
        "context.page.path": "s",
        "context.page.a\\.b": "b",
        "props.n": "n",
        "props.plan": "s",
        "props.é": "j",
    }
    assert await exporter.export(project) == 2
    done = await store.snapshot(project)
    assert file_rows(tmp_path, project, done.segments) == await log_rows(database, project)
    # What is an object in one event is not promoted, but what is in it may be.
    assert done.segments[-1].columns == {"props.plan.name": "s"}
    assert sum(segment.rows for segment in done.segments) == 502


async def test_a_snapshot_lists_the_segments_that_overlap_its_time(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    project, store, exporter = await new_project(database), SegmentStore(database), exporter_of(dsn, database, tmp_path)
    at = now().replace(microsecond=0)
    for minute in range(3):
        await put(
            database,
            project,
            [Event(ts=at + timedelta(minutes=minute)), Event(ts=at + timedelta(minutes=minute, seconds=30))],
        )
        await exporter.export(project)
    first, second, third = (await store.snapshot(project)).segments

    async def listed(start: float | None, end: float | None) -> list[int]:
        start_at, end_at = (None if minutes is None else at + timedelta(minutes=minutes) for minutes in (start, end))
        return [segment.first_seq for segment in (await store.snapshot(project, start_at, end_at)).segments]

    assert [first.first_seq, second.first_seq, third.first_seq] == [1, 3, 5]
    assert await listed(0.5, 1) == [1]
    assert await listed(0.6, 1) == []
    assert await listed(1, 2.1) == [3, 5]
    assert await listed(None, 0.1) == [1]
    assert await listed(2.5, None) == [5]


async def test_of_two_exports_of_the_same_positions_one_counts(dsn: str, database: Database, tmp_path: Path) -> None:
    project = await new_project(database)
    await put(database, project, [Event({"n": n}) for n in range(200)])
    exporters = [exporter_of(dsn, database, tmp_path) for _ in range(3)]
    results = await asyncio.gather(*(exporter.export(project) for exporter in exporters), return_exceptions=True)
    assert [result for result in results if not isinstance(result, StaleError)] == [200]
    snapshot = await SegmentStore(database).snapshot(project)
    assert file_rows(tmp_path, project, snapshot.segments) == await log_rows(database, project)
    assert len(files_below(tmp_path)) == 1


async def test_positions_without_events_are_passed_over(dsn: str, database: Database, tmp_path: Path) -> None:
    project, store, exporter = await new_project(database), SegmentStore(database), exporter_of(dsn, database, tmp_path)
    await put(database, project, [Event({"n": n}) for n in range(100)])
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM events WHERE project_id = %s AND seq <= 50", (project,))
        await connection.execute("DELETE FROM events WHERE project_id = %s AND seq %% 3 = 0", (project,))
    assert [await exporter.export(project, 40) for _ in range(4)] == [40, 40, 20, 0]
    snapshot = await store.snapshot(project)
    assert snapshot.exported == 100
    assert len(snapshot.segments) == 2
    assert file_rows(tmp_path, project, snapshot.segments) == await log_rows(database, project)


async def test_an_export_that_overlooked_events_does_not_count(dsn: str, database: Database, tmp_path: Path) -> None:
    """As one does that read without a partition which its session did not know yet."""
    project, store, exporter = await new_project(database), SegmentStore(database), exporter_of(dsn, database, tmp_path)
    await put(database, project, [Event({"n": n}) for n in range(10)])
    mark = await store.mark(project)
    with pytest.raises(StaleError, match="more events than were read"):
        await store.publish(project, mark, mark.log_end, [])
    assert (await store.snapshot(project)).exported == 0
    assert await exporter.export(project) == 10


async def test_what_was_read_before_a_new_epoch_does_not_count(dsn: str, database: Database, tmp_path: Path) -> None:
    project, store, exporter = await new_project(database), SegmentStore(database), exporter_of(dsn, database, tmp_path)
    await put(database, project, [Event()])
    await exporter.export(project)
    await put(database, project, [Event()])
    mark, (epoch, live) = await store.mark(project), await store.live(project)
    await UpkeepStore(database).new_epoch(project)
    with pytest.raises(StaleError):
        await store.replace(project, epoch, live, [])
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM events WHERE seq = 2")
    with pytest.raises(StaleError):
        await store.publish(project, mark, mark.log_end, [])
    assert (await store.snapshot(project)).segments == tuple(live)


async def test_late_events_have_segments_of_their_own(dsn: str, database: Database, tmp_path: Path) -> None:
    project, store = await new_project(database), SegmentStore(database)
    late = now() - timedelta(days=3)
    await put(database, project, [Event(ts=late if n % 10 == 0 else None) for n in range(50)])
    await exporter_of(dsn, database, tmp_path).export(project)
    old, recent = sorted((await store.snapshot(project)).segments, key=lambda segment: segment.ts_max)
    assert (old.rows, old.ts_max, recent.rows) == (5, late, 45)
    assert recent.ts_min > now() - timedelta(hours=1)


async def test_settings_of_the_database_change_no_value(dsn: str, database: Database, tmp_path: Path) -> None:
    project = await new_project(database)
    await put(database, project, [Event({"é": 0.1 + 0.2, "n": 10**20}, user_id="ü")])
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for parameter in (
            "TimeZone = 'Asia/Kolkata'",
            "client_encoding = 'LATIN1'",
            "DateStyle = 'German'",
            "extra_float_digits = -5",
        ):
            await connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {parameter}")
    await exporter_of(dsn, database, tmp_path).export(project)
    snapshot = await SegmentStore(database).snapshot(project)
    assert file_rows(tmp_path, project, snapshot.segments) == await log_rows(database, project)


async def test_a_project_that_is_deleted_meanwhile_is_not_exported(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    owner = await new_user(database)
    project, store, exporter = (
        await new_project(database, owner),
        SegmentStore(database),
        exporter_of(dsn, database, tmp_path),
    )
    await put(database, project, [Event()])
    await exporter.export(project)
    await put(database, project, [Event()])
    mark = await store.mark(project)
    await ProjectStore(database).delete(owner, project)
    with pytest.raises(StaleError):
        await store.publish(project, mark, mark.log_end, (await store.live(project))[1])
    for call in (store.mark(project), store.snapshot(project), exporter.export(project)):
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PROJECT_NOT_FOUND):
            await call


async def test_where_nothing_can_be_written_or_read_nothing_changes(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, store = await new_project(database), SegmentStore(database)
    await put(database, project, [Event()])
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        await exporter_of(dsn, database, tmp_path / "file" / "segments").export(project)
    with pytest.raises(LogAwayError):
        await exporter_of(dsn.replace("port=5432", "port=5433"), database, tmp_path).export(project)
    monkeypatch.setattr(disk, "FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(StorageError, match="MB free"):
        await exporter_of(dsn, database, tmp_path).export(project)
    assert (await store.snapshot(project)).exported == 0
    assert files_below(tmp_path) == ["file"]

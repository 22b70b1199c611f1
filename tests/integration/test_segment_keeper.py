"""The keeper exports what is due, and goes on by itself after whatever stopped it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from segment_files import Event, exporter_of, file_rows, log_rows, put
from storage import new_project, opened
from structlog.testing import capture_logs

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.segments import disk, keeper
from nimbus_server.segments.keeper import ANY_SECONDS, EXPORT_AT_ONCE, EXPORT_SOON, SOON_SECONDS, Cadence, Keeper
from nimbus_server.segments.manifest import Snapshot, segment_path, segments_folder
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings, load


@pytest.fixture
def settings(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in (("POLL_SECONDS", 0.02), ("UPKEEP_SECONDS", 0.05), ("PAUSE_SECONDS", 0.05), ("ANY_SECONDS", 0)):
        monkeypatch.setattr(keeper, name, value)
    return load(environment="test", database_url=dsn, data_dir=tmp_path)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with opened(Database(settings)) as pool:
        await Partitions(pool).ensure_ahead(now())
        yield pool


@asynccontextmanager
async def running(database: Database, settings: Settings) -> AsyncIterator[None]:
    task = asyncio.create_task(Keeper(database, settings).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def reached(store: SegmentStore, project: UUID, condition: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(60):
        while not condition(snapshot := await store.snapshot(project)):
            pass
        return snapshot


def test_a_project_is_exported_when_it_has_many_events_or_has_some_for_long() -> None:
    at = 0.0
    cadence = Cadence(lambda: at)
    few, some, many = uuid4(), uuid4(), uuid4()
    assert cadence.due({}) is None
    assert cadence.due({few: 1, some: EXPORT_AT_ONCE - 1, many: EXPORT_AT_ONCE}) == many
    at = SOON_SECONDS
    assert cadence.due({few: EXPORT_SOON - 1, some: EXPORT_SOON}) == some
    # Once it has no events left to be exported, its time begins anew.
    assert cadence.due({few: 1}) is None
    assert cadence.due({few: 1, some: EXPORT_SOON}) is None
    at = ANY_SECONDS
    assert cadence.due({few: 1}) == few


def test_a_large_backlog_does_not_keep_others_waiting() -> None:
    at = 0.0
    cadence = Cadence(lambda: at)
    huge, other = uuid4(), uuid4()
    lags = {huge: 100 * EXPORT_AT_ONCE, other: EXPORT_AT_ONCE}
    turns = []
    for _ in range(6):
        project = cadence.due(lags)
        assert project is not None
        at += 1
        cadence.took_turn(project)
        turns.append(project)
    assert sorted(turns, key=str) == sorted([huge, other] * 3, key=str)
    # One that failed waits.
    cadence.took_turn(huge, 60)
    assert cadence.due(lags) == other
    assert cadence.due({huge: lags[huge]}) is None
    at += ANY_SECONDS
    assert cadence.due({huge: lags[huge]}) == huge


async def test_logs_are_exported_and_compacted_as_they_grow(database: Database, settings: Settings) -> None:
    store, projects = SegmentStore(database), [await new_project(database) for _ in range(2)]
    async with running(database, settings):
        for n in range(10):
            for project in projects:
                end = await put(database, project, [Event({"n": n}), Event({"n": "x"})])
                await reached(store, project, lambda snapshot, end=end: snapshot.exported == end)
        for project in projects:
            snapshot = await reached(store, project, lambda snapshot: len(snapshot.segments) < 8)
            rows = file_rows(segments_folder(settings.data_dir), project, snapshot.segments)
            assert rows == await log_rows(database, project)


async def test_a_file_that_cannot_be_read_keeps_no_other_project_from_being_compacted(
    database: Database, settings: Settings, dsn: str
) -> None:
    store, (broken, other) = SegmentStore(database), [await new_project(database) for _ in range(2)]
    folder = segments_folder(settings.data_dir)
    exporter = exporter_of(dsn, database, folder)
    for n in range(9):
        # The longer log has its turn first.
        await put(database, broken, [Event({"n": n})] * 2)
        await put(database, other, [Event({"n": n})])
        for project in (broken, other):
            await exporter.export(project)
    for segment in (await store.snapshot(broken)).segments:
        path = segment_path(folder, broken, segment.id)
        path.unlink()
        path.mkdir()
    async with running(database, settings):
        await reached(store, other, lambda snapshot: len(snapshot.segments) < 8)
    assert len((await store.snapshot(broken)).segments) == 9


async def test_a_full_disk_is_said_once_and_exports_go_on_when_there_is_room(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, project = SegmentStore(database), await new_project(database)
    await put(database, project, [Event()])
    free = disk.FREE_BYTES_MIN
    attempts = []
    attempt = disk.attempt

    def counted(work: Callable[[], int]) -> int:
        attempts.append(work)
        return attempt(work)

    monkeypatch.setattr(disk, "attempt", counted)
    monkeypatch.setattr(disk, "FREE_BYTES_MIN", 1 << 62)
    with capture_logs() as logs:
        async with running(database, settings):
            async with asyncio.timeout(30):
                while len(attempts) < 3:
                    await store.snapshot(project)
            assert (await store.snapshot(project)).exported == 0
            monkeypatch.setattr(disk, "FREE_BYTES_MIN", free)
            await reached(store, project, lambda snapshot: snapshot.exported == 1)
    assert [log["event"] for log in logs if "segments can" in log["event"]] == [
        "segments can't be written, and questions read the log until they can",
        "segments can be written again",
    ]


async def test_two_keepers_make_no_event_count_twice(database: Database, settings: Settings) -> None:
    store, project = SegmentStore(database), await new_project(database)
    async with running(database, settings), running(database, settings):
        for n in range(12):
            end = await put(database, project, [Event({"n": n})])
            await reached(store, project, lambda snapshot, end=end: snapshot.exported == end)
    snapshot = await store.snapshot(project)
    rows = file_rows(segments_folder(settings.data_dir), project, snapshot.segments)
    assert rows == await log_rows(database, project)

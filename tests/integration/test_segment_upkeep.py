"""Compaction, erasure, retention and rebuilding change which files hold the events, and nothing else."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from segment_files import Event, exporter_of, file_rows, files_below, log_rows, put
from storage import new_project, new_user, opened, settings_for

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.projects.store import ProjectStore
from nimbus_server.segments import cleanup, compact
from nimbus_server.segments.cleanup import Cleaner
from nimbus_server.segments.compact import Compactor, choose
from nimbus_server.segments.erase import Eraser
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.manifest import Erasure, Segment, segment_path
from nimbus_server.segments.store import SegmentStore, StaleError
from nimbus_server.segments.upkeep_store import UpkeepStore
from nimbus_server.segments.workbench import SegmentMissingError

NOW = datetime(2025, 6, 15, 12, 0, tzinfo=UTC)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        await Partitions(pool).ensure_ahead(now() - timedelta(days=90))
        yield pool


@dataclass(frozen=True)
class Kept:
    """A project whose log is exported to a folder, and who keeps it."""

    database: Database
    folder: Path
    id: UUID
    owner: UUID
    store: SegmentStore
    upkeep: UpkeepStore
    exporter: Exporter

    @property
    def eraser(self) -> Eraser:
        return Eraser(self.store, self.upkeep, self.folder)

    @property
    def compactor(self) -> Compactor:
        return Compactor(self.store, self.folder, now)

    def cleaner(self, retention_days: int | None = None) -> Cleaner:
        return Cleaner(self.upkeep, self.folder, now, retention_days)

    async def put(self, *events: Event) -> None:
        """Have events in a segment of their own."""
        await put(self.database, self.id, events)
        await self.exporter.export(self.id)

    async def live(self) -> list[Segment]:
        return (await self.store.live(self.id))[1]

    async def rows(self) -> list[tuple[Any, ...]]:
        return file_rows(self.folder, self.id, await self.live())

    async def log(self) -> list[tuple[Any, ...]]:
        return await log_rows(self.database, self.id)

    async def age_retired(self) -> None:
        async with self.database.transaction() as connection:
            await connection.execute("UPDATE segments SET retired_at = retired_at - interval '11 minutes'")


@pytest.fixture
async def kept(dsn: str, database: Database, tmp_path: Path) -> Kept:
    owner = await new_user(database)
    project = await new_project(database, owner)
    exporter = exporter_of(dsn, database, tmp_path)
    return Kept(database, tmp_path, project, owner, SegmentStore(database), UpkeepStore(database), exporter)


async def test_compaction_makes_one_segment_of_many_small_ones(kept: Kept) -> None:
    at = now()
    for n in range(8):
        await kept.put(Event({"n": n, "plan": "x"}, ts=at), Event({"n": str(n)}, user_id=f"u{n}", ts=at))
        assert await kept.compactor.compact(kept.id) == (0 if n < 7 else 8)
    (merged,) = await kept.live()
    assert await kept.rows() == await kept.log()
    assert (merged.rows, merged.first_seq, merged.last_seq) == (16, 1, 16)
    assert merged.columns == {"props.n": "sn", "props.plan": "s"}
    assert await kept.compactor.compact(kept.id) == 0


async def test_days_that_are_over_get_their_own_segments(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "SPLIT_ROWS_MIN", 5)
    monkeypatch.setattr(compact, "SEGMENTS_MIN", 3)
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=days) + timedelta(hours=1) for days in (5, 4, 3)]
    for _ in range(3):
        await kept.put(*(Event(ts=day) for day in days for _ in range(2)), Event(ts=today - timedelta(days=10)))
    while await kept.compactor.compact(kept.id):
        pass
    live = await kept.live()
    assert sorted((segment.ts_min, segment.ts_max, segment.rows) for segment in live) == [
        (today - timedelta(days=10), today - timedelta(days=10), 3),
        *((day, day, 6) for day in days),
    ]
    assert await kept.rows() == await kept.log()


def segment(start: datetime, end: datetime, rows: int = 10, size: int = 1000) -> Segment:
    return Segment(uuid4(), 1, 2, start, end, rows, size, {})


def test_segments_are_merged_within_days_and_old_ones_within_months() -> None:
    def day(days: int, rows: int = 10) -> Segment:
        start = NOW - timedelta(days=days)
        return segment(start, start + timedelta(hours=1), rows)

    assert choose([day(0) for _ in range(7)], NOW) == (None, [])
    assert len(choose([day(0) for _ in range(8)], NOW)[1]) == 8
    over = [day(2), day(2), day(3)]
    assert choose(over, NOW)[1] == over[:2]
    assert choose([day(2), day(3), day(4)], NOW) == (None, [])
    months_ago = [day(80), day(81), day(120)]
    assert choose(months_ago, NOW)[1] == months_ago[:2]
    assert choose([day(2, compact.SMALL_ROWS), day(2, 5)], NOW) == (None, [])
    # No more than fit in one.
    many = [day(2, compact.SMALL_ROWS - n) for n in range(6)]
    assert choose(many, NOW)[1] == many[:1:-1]


async def test_of_two_compactions_of_the_same_segments_one_counts(kept: Kept) -> None:
    for n in range(8):
        await kept.put(Event({"n": n}, ts=now() - timedelta(days=3)))
    results = await asyncio.gather(*(kept.compactor.compact(kept.id) for _ in range(2)), return_exceptions=True)
    assert [result for result in results if not isinstance(result, StaleError)] == [8]
    assert await kept.rows() == await kept.log()
    assert len(files_below(kept.folder)) == 9


async def test_an_erased_person_is_in_no_segment_and_later_events_stay(kept: Kept) -> None:
    await kept.put(Event(user_id="o'b"), Event(user_id="other"), Event(user_id=None, anonymous_id="o'b"))
    await kept.put(Event(user_id="other"), Event(user_id=None))
    await kept.put(Event(user_id="o'b"))
    untouched = [segment for segment in await kept.live() if segment.first_seq == 4]
    await put(kept.database, kept.id, [Event(user_id="o'b")])
    assert await kept.eraser.erase(kept.id, "user_id", "o'b") == 3
    await kept.put(Event(user_id="o'b"))
    assert [row[0] for row in await kept.rows()] == [2, 3, 4, 5, 8]
    assert await kept.rows() == await kept.log()
    assert untouched[0] in await kept.live()
    assert (await kept.store.snapshot(kept.id)).erasures == ()
    assert await kept.eraser.erase(kept.id, "anonymous_id", "o'b") == 1
    assert [row[0] for row in await kept.rows()] == [2, 4, 5, 8]


async def test_questions_leave_out_what_is_being_erased(kept: Kept) -> None:
    await kept.put(Event(user_id="a"), Event(user_id="b"), Event(user_id=None))
    await kept.upkeep.begin_erasure(kept.id, "user_id", "a")
    await kept.put(Event(user_id="a"))
    snapshot = await kept.store.snapshot(kept.id)
    assert snapshot.erasures == (Erasure("user_id", "a", 3),)
    seen = file_rows(kept.folder, kept.id, snapshot.segments, f"seq, {snapshot.erasures[0].kept}")
    assert seen == [(1, False), (2, True), (3, True), (4, True)]
    # Whoever began it was killed: it is finished by doing it again, with what was exported meanwhile.
    assert await kept.upkeep.with_erasures() == [kept.id]
    assert await kept.eraser.finish(kept.id) == 1
    assert [row[0] for row in await kept.rows()] == [2, 3, 4]


async def test_old_segments_are_retired_and_their_files_go_after_the_longest_question(kept: Kept) -> None:
    old, recent = now() - timedelta(days=85), now() - timedelta(days=1)
    await kept.put(Event(ts=old))
    await kept.put(Event(ts=recent))
    assert await kept.cleaner().clean() == 0
    assert await kept.cleaner(retention_days=365).clean() == 0
    assert len(await kept.live()) == 2
    assert await kept.cleaner(retention_days=30).clean() == 0
    (left,) = await kept.live()
    assert (left.ts_max, len(files_below(kept.folder))) == (recent, 2)
    await kept.age_retired()
    assert await kept.cleaner().clean() == 1
    assert files_below(kept.folder) == [f"{kept.id}/{left.id}.parquet"]
    assert await kept.upkeep.known(kept.id) == {left.id}


async def test_files_that_no_manifest_names_are_deleted_when_they_are_old(kept: Kept) -> None:
    await kept.put(Event())
    (live,) = files_below(kept.folder)
    orphan = segment_path(kept.folder, kept.id, uuid4())
    spill = kept.folder / "spill-killed"
    spill.mkdir()
    for path in (orphan, orphan.with_suffix(".tmp"), spill / "x.tmp"):
        path.write_bytes(b"x")
    assert await kept.cleaner().clean() == 0
    for path in (kept.folder / live, orphan, orphan.with_suffix(".tmp"), spill):
        os.utime(path, (time.time(), time.time() - cleanup.ORPHANED_SECONDS - 1))
    assert await kept.cleaner().clean() == 2
    assert files_below(kept.folder) == [live]


async def test_a_deleted_projects_files_go(kept: Kept) -> None:
    await kept.put(Event(), Event())
    stays = await new_project(kept.database)
    await put(kept.database, stays, [Event()])
    await kept.exporter.export(stays)
    await ProjectStore(kept.database).delete(kept.owner, kept.id)
    assert await kept.cleaner().clean() == 1
    assert [name.split("/")[0] for name in files_below(kept.folder)] == [str(stays)]
    async with kept.database.transaction() as connection:
        both = "SELECT project_id FROM segments UNION SELECT project_id FROM segment_marks"
        assert await (await connection.execute(both)).fetchall() == [(stays,)]


async def test_segments_are_made_anew_after_a_rebuild(kept: Kept) -> None:
    await kept.put(*(Event({"n": n}) for n in range(5)))
    before, mark = await kept.store.snapshot(kept.id), await kept.store.mark(kept.id)
    assert await kept.upkeep.rebuild(kept.id) == 1
    snapshot = await kept.store.snapshot(kept.id)
    assert (snapshot.exported, snapshot.segments) == (0, ())
    # A question under way goes on with the old files.
    assert len(file_rows(kept.folder, kept.id, before.segments)) == 5
    # An export that began before does not count.
    await put(kept.database, kept.id, [Event()])
    with pytest.raises(StaleError):
        await kept.store.publish(kept.id, mark, 6, before.segments)
    assert await kept.exporter.export(kept.id) == 6
    assert await kept.rows() == await kept.log()
    assert await kept.upkeep.rebuild(None) == 1


async def test_a_missing_file_is_named(kept: Kept) -> None:
    for _ in range(2):
        await kept.put(Event(ts=now() - timedelta(days=3)))
    (kept.folder / files_below(kept.folder)[0]).unlink()
    with pytest.raises(SegmentMissingError, match="nimbus segments rebuild"):
        await kept.compactor.compact(kept.id)

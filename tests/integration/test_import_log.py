"""What is imported stands in the log once, in the order of the files, whatever happens on the way."""

import asyncio
import gzip
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage import Count, counts_of, log_of, new_event, new_project, opened, settings_for

from nimbus_server.clock import micros, now
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.events.store import LoggedEvent
from nimbus_server.importer import source as source_module
from nimbus_server.importer.files import find_source
from nimbus_server.importer.reader import read_blocks
from nimbus_server.importer.run import Progress, import_blocks
from nimbus_server.importer.source import Block, FileDamagedError, blocks_of
from nimbus_server.importer.target import with_database
from nimbus_server.ingest.commit import Append
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

START = datetime(2012, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


def nothing(*_: object) -> None:
    pass


async def here(paths: Sequence[Path]) -> AsyncIterator[Block]:
    """The blocks, without a process."""
    for path in paths:
        for block in blocks_of(find_source(path, None), now, None):
            yield block


async def import_here(
    database: Database, project: UUID, *paths: Path, done: Callable[[Block], None] = nothing, patience: float = 10
) -> Progress:
    progress = Progress()
    log = EventLog(database, Partitions(database))
    await import_blocks(log, project, here(paths), progress, done, nothing, patience)
    return progress


def write(path: Path, events: Sequence[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events))
    return path


def many(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"name": "ab"[n % 2], "ts": START + timedelta(seconds=n * 7919 % count), "props": {"n": n}, **fields}
        for n in range(count)
    ]


def recounted(log: Sequence[LoggedEvent]) -> set[Count]:
    counted = Counter((e.ts.replace(second=0, microsecond=0), e.name) for e in log)
    return {Count(minute, name, count) for (minute, name), count in counted.items()}


async def holds_once(database: Database, project: UUID, events: Sequence[dict[str, Any]]) -> None:
    """Every event once, in order, without a gap in the positions, and counted."""
    log = await log_of(database, project)
    assert [(e.name, e.ts, e.props) for e in log] == [(e["name"], e["ts"], e["props"]) for e in events]
    assert [e.seq for e in log] == list(range(1, len(events) + 1))
    assert await counts_of(database, project) == recounted(log)


NAMES = st.sampled_from(["a", "b"])
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2020, 2, 1), timezones=st.just(UTC))  # noqa: DTZ001
EVENTS = st.lists(st.fixed_dictionaries({"name": NAMES, "ts": TIMES, "props": st.just({"x": [1, {"y": None}]})}))


@given(EVENTS, EVENTS, st.booleans(), st.integers(1, 6))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_files_are_read_back_in_their_order_and_a_second_run_adds_nothing(
    database: Database,
    tmp_path: Path,
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    zipped: bool,
    block: int,
) -> None:
    project = await new_project(database)
    paths = [write(tmp_path / "one.jsonl", first), write(tmp_path / "two.jsonl", second)]
    if zipped:
        paths[1] = tmp_path / "two.jsonl.gz"
        paths[1].write_bytes(gzip.compress((tmp_path / "two.jsonl").read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BLOCK_RECORDS", block)
        patch.setattr(source_module, "SOME_RECORDS", block)
        once = await import_here(database, project, *paths)
        await holds_once(database, project, first + second)
        again = await import_here(database, project, *paths)
        await holds_once(database, project, first + second)
    count = len(first) + len(second)
    assert (once.stored, once.there_already, once.refused) == (count, 0, 0)
    assert (again.stored, again.there_already, again.refused) == (0, count, 0)


async def test_repeats_are_told_by_key_id_or_line(database: Database, tmp_path: Path) -> None:
    project = await new_project(database)
    ts = START.isoformat()
    by_key = [{"name": "n", "ts": ts, "idempotency_key": "k", "props": {"n": n}} for n in (1, 2)]
    by_id = [{"name": "n", "ts": ts, "id": "i", "props": {"n": n}} for n in (3, 4)]
    moved = [{"name": "n", "ts": "2013-01-01T00:00:00Z", "id": "i", "props": {"n": 5}}]
    alike = [{"name": "n", "ts": ts, "props": {"n": 6}}] * 2
    progress = await import_here(database, project, write(tmp_path / "a.jsonl", by_key + by_id + moved + alike))
    assert (progress.stored, progress.there_already) == (5, 2)
    assert [e.props["n"] for e in await log_of(database, project)] == [1, 3, 5, 6, 6]


async def test_two_files_that_begin_alike_are_two(database: Database, tmp_path: Path) -> None:
    project = await new_project(database)
    events = many(10)
    await import_here(database, project, write(tmp_path / "a.jsonl", events[:5]), write(tmp_path / "b.jsonl", events))
    await holds_once(database, project, events[:5] + events)
    # The same file in another folder, and grown by some lines.
    (tmp_path / "moved").mkdir()
    grown = await import_here(database, project, write(tmp_path / "moved" / "a.jsonl", [*events[:5], *many(2)]))
    assert (grown.stored, grown.there_already) == (2, 5)


async def test_what_live_ingest_has_stored_by_key_is_there_already(database: Database, tmp_path: Path) -> None:
    project = await new_project(database)
    path = write(tmp_path / "a.jsonl", many(3, idempotency_key="k"))
    ((*_, live),) = [block.events async for block in here([path])]
    log = EventLog(database, Partitions(database))
    await log.append([Append(project, None, [live], micros(now()))])
    progress = await import_here(database, project, path)
    assert (progress.stored, progress.there_already) == (2, 1)


async def test_live_ingest_gets_its_turn_between_blocks(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BLOCK_RECORDS", 500)
    project = await new_project(database)
    path = write(tmp_path / "a.jsonl", many(20_000))
    live = EventLog(database, Partitions(database))
    begun = asyncio.Event()
    importing = asyncio.create_task(import_here(database, project, path, done=lambda _: begun.set()))
    await begun.wait()
    for _ in range(3):
        await live.append([Append(project, None, [new_event(START, name="live")], micros(now()))])
    assert not importing.done()
    assert (await importing).stored == 20_000
    log = await log_of(database, project)
    assert [e.seq for e in log] == list(range(1, 20_004))
    assert [e.props["n"] for e in log if e.name != "live"] == list(range(20_000))


SCANS = """
SELECT sum(idx_scan) FILTER (WHERE indexrelname LIKE '%pkey'), sum(idx_scan) FILTER (WHERE indexrelname LIKE '%seq_idx')
FROM pg_stat_user_indexes WHERE relname = 'events_before_2020'
"""


async def test_repeats_are_found_by_their_key_in_a_project_that_no_statistics_know(dsn: str, tmp_path: Path) -> None:
    count = 3000
    path = write(tmp_path / "a.jsonl", many(count))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        async with opened(Database(with_database(settings_for(dsn)))) as database:
            await import_here(database, await new_project(database), path)
            await other.execute("ANALYZE events_before_2020")
            project = await new_project(database)
            await import_here(database, project, path)
            before = await (await other.execute(SCANS)).fetchone()
            assert (await import_here(database, project, path)).there_already == count
        # What a connection has counted is there when it has ended.
        after = before
        while before is None or after is None or sum(after) - sum(before) < count:
            after = await (await other.execute(SCANS)).fetchone()
        assert after[1] - before[1] < count


KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'nimbus'
"""


async def test_a_lost_database_is_tried_again(
    database: Database, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BLOCK_RECORDS", 500)
    project = await new_project(database)
    events = many(10_000)
    path = write(tmp_path / "a.jsonl", events)
    blocks: asyncio.Queue[Block] = asyncio.Queue()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        importing = asyncio.create_task(import_here(database, project, path, done=blocks.put_nowait))
        for kill in range(6):
            for _ in range(kill % 3 + 1):
                await blocks.get()
            await other.execute(KILL)
        progress = await importing
    assert progress.stored + progress.there_already == len(events)
    assert progress.there_already <= 6 * 500
    await holds_once(database, project, events)


async def test_a_database_that_stays_away_ends_it(database: Database, dsn: str, tmp_path: Path) -> None:
    project = await new_project(database)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("LOCK TABLE streams")
        with pytest.raises(NimbusError) as given_up:
            await import_here(database, project, write(tmp_path / "a.jsonl", many(1)), patience=0.1)
    assert given_up.value.reason is Reason.STORAGE_UNAVAILABLE


async def test_a_project_that_is_deleted_meanwhile_ends_it_at_once(database: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", many(1))
    with pytest.raises(NimbusError) as given_up:
        await import_here(database, UUID(int=1), path, patience=3600)
    assert given_up.value.reason is Reason.PROJECT_NOT_FOUND


async def test_the_reader_s_process_gives_what_the_files_hold(tmp_path: Path) -> None:
    paths = [write(tmp_path / "one.jsonl", many(10_000)), write(tmp_path / "two.jsonl", [{"name": ""}, *many(3)])]
    async with aclosing(read_blocks([find_source(path, None) for path in paths], None)) as blocks:
        read = [block async for block in blocks]
    expected = [block async for block in here(paths)]
    assert [block.events for block in read] == [block.events for block in expected]
    assert [block.rejected for block in read] == [block.rejected for block in expected]
    assert [(b.source, b.records, b.last_line, b.position) for b in read] == [
        (b.source, b.records, b.last_line, b.position) for b in expected
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_all_processes_leaves_the_reader_to_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    path = write(tmp_path / "one.jsonl", many(30_000))
    before = set(psutil.Process().children())
    async with aclosing(read_blocks([find_source(path, None)], None)) as blocks:
        read = (await anext(blocks)).records
        for child in set(psutil.Process().children()) - before:
            child.send_signal(how)
        async for block in blocks:
            read += block.records
    assert read == 30_000


async def test_the_reader_s_process_passes_damage_on_and_ends_when_nobody_reads_on(tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", many(30_000))
    async with aclosing(read_blocks([find_source(path, None)], None)) as blocks:
        assert (await anext(blocks)).records == source_module.BLOCK_RECORDS
    damaged = tmp_path / "two.jsonl.gz"
    damaged.write_bytes(gzip.compress(path.read_bytes())[:-10])
    read = read_blocks([find_source(damaged, None)], None)
    with pytest.raises(FileDamagedError, match=r"two\.jsonl\.gz"):
        async for _ in read:
            pass

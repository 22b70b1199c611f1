"""Makes segments: DuckDB reads events from PostgreSQL over ADBC, or from other segments, and writes Parquet.

Everything here blocks: `run` has it done in a thread.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import adbc_driver_manager as adbc
import adbc_driver_postgresql as adbc_postgresql
import duckdb

from nimbus_server.analyses.literal import literal
from nimbus_server.segments import columns
from nimbus_server.segments.arrow import Rows
from nimbus_server.segments.disk import StorageError, attempt, keep, made
from nimbus_server.segments.manifest import Segment, segment_path

T = TypeVar("T")

# For one statement that reads a range of the log.
STATEMENT_SECONDS_MAX = 120
SAMPLE_EVENTS, SAMPLE_BYTES_MAX = 5_000, 16 * 1024**2
# DuckDB holds a row group in memory until it is full.
ROW_GROUP_ROWS_MIN, ROW_GROUP_ROWS, ROW_GROUP_BYTES_MAX = 2_048, 122_880, 64 * 1024**2
SPILL_PREFIX, UNFINISHED_SUFFIX = "spill-", ".tmp"

BASE_COLUMNS = (
    "seq, ts, name, user_id, anonymous_id, uid, id, received_at, idempotency_key, props, context"  # of every segment
)
# Times as those of UTC, which no setting of a session changes on the way.
READ_LOG = """
SELECT seq, ts AT TIME ZONE 'UTC' AS ts, name, user_id, anonymous_id, id, received_at AT TIME ZONE 'UTC' AS received_at,
    idempotency_key, props::text AS props, context::text AS context
FROM events WHERE project_id = '{project_id}' AND seq > {after} AND seq <= {upto}
"""
LOAD_LOG = """
CREATE OR REPLACE TEMP TABLE log AS SELECT seq, ts, name, user_id, anonymous_id,
    CAST(md5_number_lower(coalesce(user_id, anonymous_id)) >> 1 AS BIGINT) AS uid, CAST(id AS UUID) AS id, received_at,
    idempotency_key, props, context
FROM stream
"""


class LogAwayError(Exception):
    """The log can't be read: the database is away, say. The text says why."""


class SegmentMissingError(Exception):
    """A file that the manifest names is not there."""


class Workbench:
    """A DuckDB in memory that spills to the folder of the segments; a context manager.

    Its relation `log` holds what was loaded last. Methods raise StorageError.
    """

    def __init__(self, folder: Path, threads: int, memory_bytes: int) -> None:
        self._folder = folder
        self._spill = Path(attempt(lambda: tempfile.mkdtemp(prefix=SPILL_PREFIX, dir=made(folder))))
        self._duckdb = duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": f"{memory_bytes}B",
                "temp_directory": str(self._spill),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._duckdb.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def interrupt(self) -> None:
        """Have what another thread does here fail soon."""
        self._duckdb.interrupt()

    def load_log(self, conninfo: str, project_id: UUID, after: int, upto: int) -> int:
        """Load a range of positions from `events`, and return how many events it has. Raises LogAwayError too."""
        query = READ_LOG.format(project_id=project_id, after=after, upto=upto)
        try:
            with adbc_postgresql.connect(conninfo) as database, adbc.AdbcConnection(database) as connection:
                with adbc.AdbcStatement(connection) as statement:
                    statement.set_sql_query(f"SET statement_timeout = '{STATEMENT_SECONDS_MAX}s'")
                    statement.execute_update()
                with closing(Rows(connection, query)) as rows:
                    self._duckdb.register("stream", rows)
                    try:
                        return self._count(LOAD_LOG)
                    finally:
                        self._duckdb.unregister("stream")
        except adbc.Error as error:
            raise LogAwayError(str(error).strip()) from error

    def load_segments(self, paths: Sequence[Path], kept: Sequence[str] = ()) -> None:
        """Let `log` be the events of these files for which all of `kept`, SQL, holds.

        Raises SegmentMissingError.
        """
        for path in paths:
            if not path.exists():
                raise SegmentMissingError(
                    f"{path} is missing: `nimbus segments rebuild` makes a project's segments anew"
                )
        files = ", ".join(literal(str(path)) for path in paths)
        where = " AND ".join(kept) or "TRUE"
        self._execute(
            f"CREATE OR REPLACE TEMP VIEW log AS SELECT {BASE_COLUMNS} "  # noqa: S608 - our own names
            f"FROM read_parquet([{files}], union_by_name = true) WHERE {where}"
        )

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a statement over `log`."""
        return self._execute(query)

    def write(self, project_id: UUID, where: str = "TRUE") -> Segment | None:
        """Write those events of `log` for which `where`, SQL, holds; None if there are none.

        The file is on the disk when this returns. No manifest names it yet.
        """
        source = f"(SELECT * FROM log WHERE {where})"  # noqa: S608 - our own
        facts = self._execute(
            "SELECT count(*), min(seq), max(seq), min(ts), max(ts), sum(strlen(props) + strlen(context)) "  # noqa: S608
            f"FROM {source} AS log"
        )[0]
        rows, first_seq, last_seq, ts_min, ts_max, json_bytes = facts
        if not rows:
            return None
        row_bytes = json_bytes / rows + 200
        promoted = self._promoted(source, int(min(SAMPLE_EVENTS, SAMPLE_BYTES_MAX // row_bytes)))
        group = int(min(ROW_GROUP_ROWS, max(ROW_GROUP_ROWS_MIN, ROW_GROUP_BYTES_MAX // row_bytes)))
        segment = Segment(uuid4(), first_seq, last_seq, _utc(ts_min), _utc(ts_max), rows, 0, promoted)
        path = segment_path(self._folder, project_id, segment.id)
        unfinished = path.with_suffix(UNFINISHED_SUFFIX)
        attempt(lambda: made(path.parent))
        try:
            self._execute(
                f"COPY ({columns.select(source, BASE_COLUMNS, promoted)} ORDER BY uid, ts, seq) "
                f"TO {literal(str(unfinished))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group})"
            )
            size = attempt(lambda: keep(unfinished, path))
        finally:
            unfinished.unlink(missing_ok=True)
        return replace(segment, bytes=size)

    def discard(self, project_id: UUID, segments: Sequence[Segment]) -> None:
        """Delete the files of segments that no manifest will name."""
        for segment in segments:
            segment_path(self._folder, project_id, segment.id).unlink(missing_ok=True)

    def _promoted(self, source: str, sample: int) -> dict[str, str]:
        """The paths to promote, with the kinds that their values have."""
        texts = self._execute(
            f"SELECT props, context FROM {source} USING SAMPLE reservoir({sample} ROWS) REPEATABLE (1)"  # noqa: S608
        )
        paths = columns.find_paths(texts)
        if not paths:
            return {}
        (found,) = self._execute(columns.select_kinds(source, paths))
        return columns.kinds_found(paths, found)

    def _count(self, query: str) -> int:
        return int(self._execute(query)[0][0])

    def _execute(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self._duckdb.execute(query).fetchall()
        except duckdb.IOException as error:
            raise StorageError(str(error).strip()) from error


async def run(bench: Workbench, work: Callable[[], T]) -> T:
    """Do the work, which uses this bench, in a thread. When cancelled, it is interrupted and waited for."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        bench.interrupt()
        with suppress(Exception):
            await task
        raise


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)

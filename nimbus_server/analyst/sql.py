"""`nimbus sql`: one project's events as the view `events`, for an operator who writes SQL."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import duckdb

from nimbus_server.analyses.literal import literal
from nimbus_server.analyst.memory import budget
from nimbus_server.analyst.tail import Error as TailError
from nimbus_server.analyst.tail import Tail
from nimbus_server.clock import micros, now
from nimbus_server.errors import NimbusError, StartupError
from nimbus_server.importer.store import check_project
from nimbus_server.importer.target import with_database
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.retention import kept_since
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.manifest import Snapshot, segment_path, segments_folder
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings

T = TypeVar("T")

ROWS_AT_A_TIME = 1000
INTERRUPT_SECONDS = 0.05
READ_ONLY = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
# As a segment has them, and as the log has them; ts and received_at are in UTC in both.
_TEXTS = "name, user_id, anonymous_id, idempotency_key"
_FROM_LOG = f"seq, ts, received_at, {_TEXTS}, id, props::text AS props, context::text AS context"
_VIEW = f"""CREATE VIEW events AS
SELECT seq, ts, received_at, {_TEXTS}, id, props::JSON AS props, context::JSON AS context
FROM ({{}}) AS stored WHERE {{}}"""
_FROM_TAIL = f"""SELECT seq, make_timestamp(epoch_us(ts)) AS ts, make_timestamp(epoch_us(received_at)) AS received_at,
{_TEXTS}, id, props, context FROM tail"""


@dataclass(frozen=True, slots=True)
class Result:
    """Names and types of the columns, and the rows. To read those raises what Events.run does."""

    columns: Sequence[tuple[str, str]]
    rows: Iterator[tuple[Any, ...]]


class Events:
    """One state of a project's log in a DuckDB of its own, which can read nothing else. `position` is its end."""

    def __init__(self, settings: Settings, project_id: UUID, spill: Path) -> None:
        self._settings = settings
        self._project_id = project_id
        self._spill = spill
        self._folder = segments_folder(settings.data_dir.expanduser().resolve())
        self.position = 0
        self.connection = duckdb.connect()

    def run(self, sql: str) -> Iterator[Result]:
        """What each statement gives, one after the other; Ctrl-C stops it.

        Raises StartupError for what is not SQL, fails, or does more than read.
        """
        try:
            statements = self.connection.extract_statements(sql)
            if any(statement.type not in READ_ONLY for statement in statements):
                raise StartupError("Only SELECT, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN: the log is not changed by SQL.")
            for statement in statements:
                cursor = self.connection.cursor()
                _stoppable(cursor, partial(cursor.execute, statement))
                columns = [(str(column[0]), str(column[1])) for column in cursor.description or ()]
                yield Result(columns, _rows(cursor))
        except duckdb.Error as error:
            raise StartupError(_said(error)) from error

    def refresh(self) -> None:
        """Read the log as it is now. Raises StartupError."""
        snapshot = asyncio.run(self._snapshot())
        self.connection.close()
        self.connection = self._opened(snapshot)
        self.position = snapshot.log_end

    async def _snapshot(self) -> Snapshot:
        await check_project(self._settings, self._project_id)
        database = Database(self._settings)
        await database.open()
        try:
            return await SegmentStore(database).snapshot(self._project_id)
        except NimbusError as error:
            raise StartupError(error.message) from error
        finally:
            await database.close()

    def _opened(self, snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
        allowed = budget(self._settings.analyst_memory)
        connection = duckdb.connect(
            config={
                "threads": allowed.threads,
                "memory_limit": f"{allowed.memory_bytes}B",
                "temp_directory": str(self._spill),
                "max_temp_directory_size": f"{allowed.disk_bytes}B",
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
            }
        )
        self._read_tail(connection, snapshot)
        files = [str(segment_path(self._folder, self._project_id, segment.id)) for segment in snapshot.segments]
        # Segments differ in the columns of properties.
        stored = f"read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"
        columns = f"seq, ts, received_at, {_TEXTS}, id, props, context"
        source = f"SELECT {columns} FROM {stored} UNION ALL {_FROM_TAIL}" if files else _FROM_TAIL
        kept = ["TRUE", *(erasure.kept for erasure in snapshot.erasures)]
        if self._settings.retention_days:
            kept.append(f"ts >= make_timestamp({micros(kept_since(now(), self._settings.retention_days))})")
        connection.execute(_VIEW.format(source, " AND ".join(kept)))
        allowed_files = f"[{', '.join(map(literal, files))}]"
        for name, value in (
            ("allowed_paths", allowed_files),
            ("allowed_directories", f"[{literal(str(self._spill))}]"),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            connection.execute(f"SET {name} = {value}")
        return connection

    def _read_tail(self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> None:
        dsn = self._settings.database_url.get_secret_value() if self._settings.database_url else ""
        behind = f"project_id = '{self._project_id}' AND seq > {snapshot.exported} AND seq <= {snapshot.log_end}"
        tail = Tail(plain_conninfo(dsn, "nimbus sql"))

        def scan(query: str, statement: str) -> list[tuple[int]]:
            with tail.rows(f"SELECT {query} FROM events WHERE {behind}", fresh=True) as rows:
                connection.register("log", rows)
                try:
                    return connection.execute(statement).fetchall()
                finally:
                    connection.unregister("log")

        try:
            scan(_FROM_LOG, "CREATE TABLE tail AS SELECT * FROM log")
            read = connection.execute("SELECT count(*) FROM tail").fetchall()
            # A session of PostgreSQL may overlook a new partition (see partitions.py); another one tells.
            if scan("count(*) AS rows", "SELECT rows FROM log") != read:
                raise StartupError("The log has a new partition that PostgreSQL has not noticed yet. Try again.")
        except (TailError, duckdb.InvalidInputException) as error:
            raise StartupError(f"The database can't be reached: {error}") from error
        finally:
            tail.close()


@contextmanager
def open_events(settings: Settings, project_id: UUID) -> Iterator[Events]:
    """The events of a project as they are now. Raises StartupError where they can't be read."""
    with tempfile.TemporaryDirectory(prefix="nimbus-sql-") as spill:
        events = Events(with_database(settings), project_id, Path(spill))
        try:
            events.refresh()
            yield events
        finally:
            events.connection.close()


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    try:
        while rows := _stoppable(cursor, lambda: cursor.fetchmany(ROWS_AT_A_TIME)):
            yield from rows
    except duckdb.Error as error:
        raise StartupError(_said(error)) from error


def _stoppable(cursor: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """What the work returns; KeyboardInterrupt ends it at once.

    In a thread of its own: while DuckDB works in the main one, Python hears of no Ctrl-C for minutes.
    """
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(work)
        try:
            return running.result()
        except KeyboardInterrupt:
            while not running.done():
                cursor.interrupt()
                wait([running], timeout=INTERRUPT_SECONDS)
            raise


def _said(error: duckdb.Error) -> str:
    missing = isinstance(error, duckdb.IOException) and "No files found" in str(error)
    return "Files of this state of the log are gone by now: read it anew with \\refresh." if missing else str(error)

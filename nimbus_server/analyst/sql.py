"""`nimbus sql`: one project's events as the view `events`, for an operator who writes SQL."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
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

READ_ONLY = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
# As a segment has them, and as the log has them; ts and received_at are in UTC in both.
_TEXTS = "name, user_id, anonymous_id, idempotency_key"
_FROM_LOG = f"seq, ts, received_at, {_TEXTS}, id, props::text AS props, context::text AS context"
_VIEW = f"""CREATE VIEW events AS
SELECT seq, ts, received_at, {_TEXTS}, id, props::JSON AS props, context::JSON AS context
FROM ({{}}) AS stored WHERE {{}}"""
_FROM_TAIL = f"""SELECT seq, make_timestamp(epoch_us(ts)) AS ts, make_timestamp(epoch_us(received_at)) AS received_at,
{_TEXTS}, id, props, context FROM tail"""


class Events:
    """One state of a project's log in a DuckDB of its own, which can read nothing else. `position` is its end."""

    def __init__(self, settings: Settings, project_id: UUID, spill: Path) -> None:
        self._settings = settings
        self._project_id = project_id
        self._spill = spill
        self._folder = segments_folder(settings.data_dir.expanduser().resolve())
        self.position = 0
        self.connection = duckdb.connect()

    def run(self, sql: str) -> list[duckdb.DuckDBPyConnection]:
        """A cursor for each statement, one after the other, that has its rows.

        Raises StartupError for what is not SQL, fails, or does more than read.
        """
        try:
            statements = self.connection.extract_statements(sql)
            if any(statement.type not in READ_ONLY for statement in statements):
                raise StartupError("Only SELECT, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN: the log is not changed by SQL.")
            return [self.connection.cursor().execute(statement) for statement in statements]
        except duckdb.Error as error:
            raise StartupError(str(error)) from error

    async def refresh(self) -> None:
        """Read the log as it is now. Raises StartupError."""
        database = Database(self._settings)
        await database.open()
        try:
            snapshot = await SegmentStore(database).snapshot(self._project_id)
        except NimbusError as error:
            raise StartupError(error.message) from error
        finally:
            await database.close()
        self.connection.close()
        self.connection = self._opened(snapshot)
        self.position = snapshot.log_end

    def _opened(self, snapshot: Snapshot) -> duckdb.DuckDBPyConnection:
        allowed = budget(self._settings.analyst_memory)
        connection = duckdb.connect(
            config={
                "threads": allowed.threads,
                "memory_limit": f"{allowed.memory_bytes}B",
                "temp_directory": str(self._spill),
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
        which = f"project_id = '{self._project_id}' AND seq > {snapshot.exported} AND seq <= {snapshot.log_end}"
        tail = Tail(plain_conninfo(dsn, "nimbus sql"))
        try:
            with tail.rows(f"SELECT {_FROM_LOG} FROM events WHERE {which}", fresh=True) as rows:
                connection.register("log", rows)
                connection.execute("CREATE TABLE tail AS SELECT * FROM log")
                connection.unregister("log")
        except (TailError, duckdb.InvalidInputException) as error:
            raise StartupError(f"The database can't be reached: {error}") from error
        finally:
            tail.close()


@asynccontextmanager
async def open_events(settings: Settings, project_id: UUID) -> AsyncIterator[Events]:
    """The events of a project as they are now. Raises StartupError where they can't be read."""
    settings = with_database(settings)
    await check_project(settings, project_id)
    with _scratch() as spill:
        events = Events(settings, project_id, spill)
        await events.refresh()
        try:
            yield events
        finally:
            events.connection.close()


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nimbus-sql-") as folder:
        yield Path(folder)

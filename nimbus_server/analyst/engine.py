"""Runs questions in DuckDB: the one module of the analyst that speaks it."""

import asyncio
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import structlog

from nimbus_server.analyses.question import AsOf, Question
from nimbus_server.analyst.memory import Budget
from nimbus_server.analyst.scan import ROWS, Scan
from nimbus_server.analyst.spill import Spill
from nimbus_server.analyst.tail import Error as TailError
from nimbus_server.analyst.tail import Rows, Tail
from nimbus_server.errors import (
    NimbusError,
    Reason,
    analyst_unavailable,
    field_error,
    question_too_large,
    segment_missing,
    storage_unavailable,
)

log = structlog.get_logger(__name__)

# gRPC's clients take so many bytes unless they are told otherwise, and a little more.
ANSWER_BYTES_MAX = 4_000_000
# Rows of Python take a few hundred bytes each, which DuckDB's limit does not count.
ROWS_MAX = 500_000
# Events that are read from PostgreSQL for one question. There are more only while segments of a new analyst are made.
TAIL_MAX = 5_000_000
STOP_SECONDS, STOP_SECONDS_MAX = 0.02, 5.0
COUNT = f"SELECT count FROM {ROWS}"
# How RE2, which DuckDB has, begins to say what is wrong with a regular expression.
BAD_REGEX = re.compile(
    r"Invalid Input Error: ((?:missing|invalid|no argument|bad repetition|unexpected|trailing|pattern too large).*)"
)


class _Run:
    """A question on its way through DuckDB, in a thread of its own. `stop` is called from another one."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, heard: Callable[[str], None]) -> None:
        self.connection = connection
        self._heard = heard
        self.cursor = connection.cursor()
        self.rows: Rows | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Interrupt what runs, and begin nothing more."""
        self._stopped.set()
        with suppress(duckdb.Error):
            self.cursor.interrupt()
        if rows := self.rows:
            rows.cancel()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of one statement over `src`."""
        if self.stopped:
            raise duckdb.InterruptException("stopped")
        self._heard(sql)
        found = self.cursor.execute(sql).fetchmany(ROWS_MAX + 1)
        if len(found) > ROWS_MAX:
            raise question_too_large("The answer has too many numbers.")
        return found


async def _stop(run: _Run, running: "asyncio.Future[bytes]") -> None:
    """Stop a question, or where it can't be stopped, the process: who started it starts another.

    DuckDB looks for interrupts every 2,048 rows. Those may take minutes where a regular expression is hard.
    """
    until = asyncio.get_running_loop().time() + STOP_SECONDS_MAX
    # Again and again: what comes between two statements interrupts neither.
    while not running.done():
        if asyncio.get_running_loop().time() > until:
            log.error("a question does not stop: this process ends", after_seconds=STOP_SECONDS_MAX)
            os._exit(1)
        # In a thread: to cancel a query, PostgreSQL is called.
        stopping = asyncio.ensure_future(asyncio.to_thread(run.stop))
        await asyncio.wait((running, stopping), timeout=STOP_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({running}, timeout=STOP_SECONDS)


async def _to_its_end(task: "asyncio.Future[None]") -> None:
    """Wait for a task, however often the caller is cancelled meanwhile: its deadline and its client may both do so."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()


class Engine:
    """One DuckDB for the process, which can reach no files but those below `folder` and `spill`.

    `folder` has the segments. `spill` is for what does not fit into memory; several processes may share it.
    Raises OSError where it can't be written.
    """

    def __init__(self, conninfo: str, folder: Path, spill: Path, budget: Budget, running_max: int) -> None:
        self._folder = folder
        self._spill = Spill(spill)
        self._budget = budget
        self._tail = Tail(conninfo)
        self._threads = ThreadPoolExecutor(running_max, thread_name_prefix="question")
        self._connections = 0
        self._renewing = threading.Lock()
        self._connection = self._connect()

    async def answer(
        self, question: Question, scan: Scan, as_of: AsOf, heard: Callable[[str], None] = lambda _: None
    ) -> bytes:
        """The encoded response. Where the caller is cancelled, the question is stopped first.

        `heard` is told each statement before it runs, in another thread.

        Raises NimbusError with QUESTION_TOO_LARGE, FIELD_INVALID (a regular expression),
        STORAGE_UNAVAILABLE, ANALYST_UNAVAILABLE (a file of a segment that is missing, too) and what the question does.
        """
        run = _Run(self._connection, heard)
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, run, question, scan, as_of)
        running.add_done_callback(lambda ended: ended.exception())  # seen, if by nobody else
        try:
            return await asyncio.shield(running)
        finally:
            if not running.done():
                await _to_its_end(asyncio.ensure_future(_stop(run, running)))

    def close(self) -> None:
        """Close everything; nothing runs any more."""
        self._threads.shutdown()
        self._tail.close()
        self._connection.close()
        self._spill.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """A new DuckDB, as nothing can change it any more."""
        self._connections += 1
        spill = self._spill.path / str(self._connections)
        spill.mkdir(mode=0o700)
        connection = duckdb.connect(
            config={
                "threads": self._budget.threads,
                "memory_limit": f"{self._budget.memory_bytes}B",
                "temp_directory": str(spill),
                "max_temp_directory_size": f"{self._budget.disk_bytes}B",
                "preserve_insertion_order": False,
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
            }
        )
        for name, value in (
            ("allowed_directories", [str(self._folder), str(self._spill.path)]),
            ("enable_external_access", False),
            ("lock_configuration", True),
        ):
            connection.execute(f"SET {name} = {value}")
        return connection

    def _answer(self, run: _Run, question: Question, scan: Scan, as_of: AsOf) -> bytes:
        try:
            with run.cursor:
                run.ask(scan.tail_table)
                self._read_tail(run, scan)
                run.ask(scan.view)
                response = question.answer(run.ask, as_of)
            encoded: bytes = response.SerializeToString()
        except (duckdb.OutOfMemoryException, MemoryError):
            raise question_too_large("The question needs more memory than questions may have.") from None
        except (duckdb.FatalException, duckdb.InternalException) as error:
            self._renew(run, error)
            raise analyst_unavailable() from None
        except duckdb.IOException:
            if not (missing := scan.missing_file()):
                raise
            log.error("a segment is missing", path=str(missing))  # noqa: TRY400 - the path says it all
            raise segment_missing() from None
        except duckdb.InvalidInputException as error:
            if not (said := BAD_REGEX.match(str(error))):
                raise
            what = f"values of MATCHES must be regular expressions of RE2: {said[1]}."
            raise field_error(Reason.FIELD_INVALID, "values", what) from None
        if len(encoded) > ANSWER_BYTES_MAX:
            raise question_too_large(f"The answer has more than {ANSWER_BYTES_MAX} bytes.")
        return encoded

    def _read_tail(self, run: _Run, scan: Scan) -> None:
        count = scan.snapshot.log_end - scan.snapshot.exported
        if count > TAIL_MAX:
            raise NimbusError(
                Reason.ANALYST_UNAVAILABLE,
                f"{count} events of the project are still to be prepared for questions. Ask again in a few minutes.",
                retry_after_seconds=30.0,
            )
        if count <= 0:
            return
        for fresh in (False, True):
            try:
                self._scan_rows(run, scan.tail_query, scan.fill_tail, fresh)
                ((read,),) = run.ask("SELECT count(*) FROM tail")
                # A session of PostgreSQL may overlook a partition that is new (see postgres/partitions.py); another one
                # tells. Retention and erasure leave holes, too.
                if read == count or self._scan_rows(run, scan.tail_count_query, COUNT, True) == [(read,)]:
                    return
                run.ask("TRUNCATE tail")
            except (duckdb.OutOfMemoryException, duckdb.FatalException, duckdb.InternalException):
                raise
            except (duckdb.Error, TailError) as error:
                if run.stopped:
                    raise
                if fresh:
                    log.warning("database unavailable", error=str(error).strip())
                    raise storage_unavailable() from None
        raise storage_unavailable()

    def _scan_rows(self, run: _Run, query: str, sql: str, fresh: bool) -> list[tuple[Any, ...]]:
        """What a statement makes of the result of PostgreSQL's query, registered as ROWS."""
        with self._tail.rows(query, fresh=fresh) as rows:
            run.rows = rows
            try:
                run.cursor.register(ROWS, rows)
                return run.ask(sql)
            finally:
                run.rows = None
                run.cursor.unregister(ROWS)

    def _renew(self, run: _Run, error: Exception) -> None:
        """After an error that makes DuckDB refuse all that follows: the next question gets a new one."""
        with self._renewing:
            if self._connection is run.connection:
                log.error("DuckDB failed", exc_info=error)
                self._connection = self._connect()

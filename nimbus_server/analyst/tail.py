"""Reads events that are in no segment yet from PostgreSQL, as Arrow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import adbc_driver_postgresql
from adbc_driver_manager import AdbcConnection, AdbcDatabase, AdbcStatement, Error

from nimbus_server.segments.arrow import Rows

# What the queries here rely on, whatever the role or the database sets.
PARAMETERS = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "default_transaction_read_only": "on",
    # As long as a question may take.
    "statement_timeout": "120s",
    "lock_timeout": "5s",
    # By index: until a project is in its statistics, PostgreSQL takes it for nearly empty and would read all of it.
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "enable_bitmapscan": "off",
}

# Connections that wait for the next query: about as many as questions run.
IDLE_MAX = 4

__all__ = ["Error", "Rows", "Tail"]


class Tail:
    """A few connections to the database, each for one thread at a time. Safe to use from several threads.

    `conninfo` is for plain libpq.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._idle: list[tuple[AdbcDatabase, AdbcConnection]] = []
        self._lock = threading.Lock()

    @contextmanager
    def rows(self, query: str, *, fresh: bool) -> Iterator[Rows]:
        """The result of a query, by a connection that is kept for the next one, unless this one fails.

        One that was idle may have died without a word: `fresh` asks for a new one. Raises Error.
        """
        with self._lock:
            idle = self._idle.pop() if self._idle and not fresh else None
        database, connection = idle or self._connect()
        try:
            rows = Rows(connection, query)
            try:
                yield rows
            finally:
                rows.close()
        except BaseException:
            _close(database, connection)
            raise
        with self._lock:
            is_kept = len(self._idle) < IDLE_MAX
            if is_kept:
                self._idle.append((database, connection))
        if not is_kept:
            _close(database, connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            _close(*self._idle.pop())

    def _connect(self) -> tuple[AdbcDatabase, AdbcConnection]:
        database = adbc_driver_postgresql.connect(self._conninfo)
        connection = AdbcConnection(database)
        for name, value in PARAMETERS.items():
            with AdbcStatement(connection) as statement:
                statement.set_sql_query(f"SET {name} = '{value}'")
                statement.execute_update()
        return database, connection


def _close(database: AdbcDatabase, connection: AdbcConnection) -> None:
    connection.close()
    database.close()

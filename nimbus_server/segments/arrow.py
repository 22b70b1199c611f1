"""What ADBC reads from PostgreSQL, as DuckDB scans it: an object of the Arrow PyCapsule interface."""

import threading
from typing import Any

from adbc_driver_manager import AdbcConnection, AdbcStatement


class Rows:
    """The result of a query, for DuckDB to scan: it runs each time that it is scanned."""

    def __init__(self, connection: AdbcConnection, query: str) -> None:
        self._statement = AdbcStatement(connection)
        self._statement.set_sql_query(query)
        self._lock = threading.Lock()
        self._open = True

    def __arrow_c_schema__(self) -> Any:
        return self._statement.execute_schema().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        stream, _ = self._statement.execute_query()
        return stream.__arrow_c_stream__()

    def cancel(self) -> None:
        """End the query from another thread, if it runs."""
        with self._lock:
            if self._open:
                self._statement.cancel()

    def close(self) -> None:
        """Give back what it holds."""
        with self._lock:
            self._open = False
            self._statement.close()

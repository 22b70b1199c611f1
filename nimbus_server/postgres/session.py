"""Connections to PostgreSQL whose session is as Nimbus needs it.

Roles, databases, connection strings, PG* variables and poolers in between may all set parameters of a session. Those
that Nimbus relies on are therefore set by statement once a connection is made. A pooler must keep a session for each
client (`pool_mode = session` in PgBouncer): in any other mode they would hold for the next statement of somebody else.
"""

from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, tuple_row

from nimbus_server.errors import StartupError

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]

ENCODING = "UTF8"
PARAMETERS = {
    # What text, times and numbers look like on their way in and out.
    "client_encoding": ENCODING,
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    # Acknowledged means durable.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Bounds on what one call can hold: a statement, a lock that others wait for, a transaction whose worker hangs.
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
}
# Migrations may take as long as the data that they change.
UNBOUNDED = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}


class EncodingError(StartupError):
    """The database can't store all text."""


def connection_options(dsn: str) -> dict[str, Any]:
    """Arguments of psycopg's `connect`, beside the DSN, that go before PG* variables of the environment."""
    return {"client_encoding": ENCODING, "options": conninfo_to_dict(dsn).get("options") or ""}


async def connect(dsn: str, *, parameters: dict[str, str] | None = None, **options: Any) -> Connection:
    """A prepared connection in autocommit mode.

    `parameters` go before PARAMETERS; `options` are those of psycopg's `connect`. Raises EncodingError and
    psycopg.Error.
    """
    connection = await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, row_factory=tuple_row, **connection_options(dsn) | options
    )
    try:
        await prepare(connection, parameters)
    except BaseException:
        await connection.close()
        raise
    return connection


async def prepare(connection: Connection, parameters: dict[str, str] | None = None) -> None:
    """Set the parameters of a new connection's session. Raises EncodingError and psycopg.Error."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise EncodingError(
            f"The database {connection.info.dbname} has the encoding {encoding}, and Nimbus stores text in UTF8 alone. "
            "Create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in NIMBUS_DATABASE_URL."
        )
    calls = [
        sql.SQL("set_config({}, {}, false)").format(name, value)
        for name, value in (PARAMETERS | (parameters or {})).items()
    ]
    await connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)))


async def check_encoding(dsn: str, connect_seconds: int) -> None:
    """Raise EncodingError where the database can be reached and can't store all text."""
    with suppress(psycopg.Error):  # it may come yet
        await (await connect(dsn, connect_timeout=connect_seconds)).close()

"""Connections to PostgreSQL whose session is as Nimbus needs it.

Roles, databases, connection strings, PG* variables and poolers in between may all set parameters of a session. Those
that Nimbus relies on are therefore set by statement once a connection is made. A pooler must keep a session for each
client (`pool_mode = session` in PgBouncer): in any other mode they would hold for the next statement of somebody else.

Two are left to the operator: search_path, by which Nimbus may have a schema of its own, and
default_transaction_read_only, which hosts turn on when a disk is full.
"""

from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
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
    # Otherwise foreign keys do nothing, and a project that is deleted leaves its members and keys.
    "session_replication_role": "origin",
    # Bounds on what one call can hold: a statement, a lock that others wait for, a transaction whose worker hangs.
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
}
# Migrations may take as long as the data that they change.
UNBOUNDED = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}

# What is as it should be is left alone: older versions lack some of them, and one takes a superuser.
PREPARE = """
SELECT current_setting('server_encoding'), count(set_config(name, value, false))
FROM unnest(%s::text[], %s::text[]) AS needed (name, value) WHERE current_setting(name, true) <> value
"""


class UnfitDatabaseError(StartupError):
    """The database is there, but Nimbus can't use it as it is."""


def connection_options(dsn: str) -> dict[str, Any]:
    """Arguments of psycopg's `connect`, beside the DSN, that go before PG* variables of the environment.

    Raises StartupError where it is none.
    """
    try:
        return {"client_encoding": ENCODING, "options": conninfo_to_dict(dsn).get("options") or ""}
    except psycopg.ProgrammingError as error:
        raise StartupError(f"NIMBUS_DATABASE_URL is not a connection string: {error}".strip()) from None


def plain_conninfo(dsn: str, application_name: str) -> str:
    """The DSN for a driver that knows no more than libpq does, with what every connection needs.

    Parameters of the session are as the database has them but for the encoding. Raises StartupError where the DSN is
    none.
    """
    options = connection_options(dsn) | {"keepalives_idle": 10, "tcp_user_timeout": 15_000}
    return make_conninfo(dsn, **options, application_name=application_name)


async def connect(dsn: str, *, parameters: dict[str, str] | None = None, **options: Any) -> Connection:
    """A prepared connection in autocommit mode.

    `parameters` go before PARAMETERS; `options` are those of psycopg's `connect`. Raises StartupError where the DSN is
    none, UnfitDatabaseError and psycopg.Error.
    """
    connection = await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, row_factory=tuple_row, **connection_options(dsn) | options
    )
    await prepare(connection, parameters)
    return connection


async def prepare(connection: Connection, parameters: dict[str, str] | None = None) -> None:
    """Set the parameters of a new connection's session, or close it.

    Raises UnfitDatabaseError, and psycopg.OperationalError where the connection is lost.
    """
    try:
        encoding = await _set(connection, PARAMETERS | (parameters or {}))
        if encoding != ENCODING:
            raise UnfitDatabaseError(
                f"The database {connection.info.dbname} has the encoding {encoding}, and Nimbus stores text in UTF8 "
                "alone. Create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in "
                "NIMBUS_DATABASE_URL."
            )
    except BaseException as error:
        await connection.close()
        if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.OperationalError):
            raise UnfitDatabaseError(f"The database refuses a session as Nimbus needs it: {error}".strip()) from error
        raise


async def _set(connection: Connection, parameters: dict[str, str]) -> str:
    """Set what differs, and return the encoding of the database."""
    autocommit = connection.autocommit
    # Without BEGIN: a role's own idle_in_transaction_session_timeout might end the connection behind it.
    await connection.set_autocommit(True)
    cursor = await connection.execute(PREPARE, (list(parameters), list(parameters.values())), prepare=False)
    row = await cursor.fetchone()
    await connection.set_autocommit(autocommit)
    return str(row[0]) if row else "unknown"


async def refuse_unfit(dsn: str, connect_seconds: int) -> None:
    """Raise StartupError where Nimbus can't use the database; one that is away now may come yet."""
    with suppress(psycopg.Error):
        await (await connect(dsn, connect_timeout=connect_seconds)).close()

"""Every connection has the session parameters that Nimbus relies on, whoever has set others."""

from collections.abc import Callable
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from storage import opened, settings_for

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.notifications import PostgresBus
from nimbus_server.postgres.session import PARAMETERS, Connection, connect

FOREIGN = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1h",
    "lock_timeout": "1h",
    "idle_in_transaction_session_timeout": "1h",
}


async def parameters_of(connection: Connection) -> dict[str, str]:
    query = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    return dict(await (await connection.execute(query, (list(PARAMETERS),))).fetchall())


@pytest.fixture
def foreign(dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with parameters of its own, in an environment with others."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for parameter, value in FOREIGN.items():
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(parameter), value))
    for variable, value in (
        ("PGCLIENTENCODING", "LATIN9"),
        ("PGTZ", "America/New_York"),
        ("PGDATESTYLE", "SQL, DMY"),
        ("PGOPTIONS", "-c search_path=nowhere -c synchronous_commit=off"),
    ):
        monkeypatch.setenv(variable, value)
    return dsn


@pytest.mark.parametrize(
    "options", ["", "&client_encoding=LATIN2", "&options=" + quote("-c timezone=Asia/Tokyo -c lock_timeout=1")]
)
async def test_the_pool_and_single_connections_have_the_same_parameters(foreign: str, options: str) -> None:
    assert FOREIGN.keys() == PARAMETERS.keys(), "each has another value here"
    async with opened(Database(settings_for(foreign + options))) as database, database.transaction() as connection:
        assert await parameters_of(connection) == PARAMETERS
        assert connection.info.encoding == "utf-8"
    async with await connect(foreign + options) as connection:
        assert await parameters_of(connection) == PARAMETERS
        assert await (await connection.execute("SELECT to_regclass('events') IS NOT NULL")).fetchone() == (True,)


async def test_whoever_tells_of_commits_does_not_wait_for_the_disk(foreign: str) -> None:
    bus = PostgresBus(settings_for(foreign))
    await bus.publish([uuid4()])
    assert bus._teller is not None
    assert await parameters_of(bus._teller) == PARAMETERS | {"synchronous_commit": "off"}
    await bus.close()


async def test_calls_say_why_a_database_of_another_encoding_will_not_do(dsn_of: Callable[[str], str]) -> None:
    name = f"ascii_{uuid4().hex[:8]}"
    with psycopg.connect(dsn_of("postgres"), autocommit=True) as connection:
        create = "CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        connection.execute(sql.SQL(create).format(sql.Identifier(name)))
    async with opened(Database(settings_for(dsn_of(name)))) as database:
        with pytest.raises(NimbusError, match="has the encoding SQL_ASCII") as caught:
            async with database.transaction():
                pass
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE

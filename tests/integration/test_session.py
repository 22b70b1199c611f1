"""Every connection has the session parameters that Nimbus relies on, whoever has set others."""

from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from pooler import pooler
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from storage import NOW, append, new_event, new_project, opened, settings_for

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.migrate import migrate
from nimbus_server.postgres.notifications import PostgresBus
from nimbus_server.postgres.partitions import Partitions, month_of
from nimbus_server.postgres.session import PARAMETERS, UNBOUNDED, Connection, connect

FOREIGN = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "session_replication_role": "replica",
    "statement_timeout": "1h",
    "lock_timeout": "1h",
    "idle_in_transaction_session_timeout": "1ms",
    "transaction_timeout": "1h",
    "idle_session_timeout": "1h",
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


async def test_a_pooler_may_leave_out_what_a_connection_begins_with(foreign: str, scratch: Path) -> None:
    upstream = Path(str(conninfo_to_dict(foreign)["host"])) / ".s.PGSQL.5432"
    with pooler(scratch, upstream, "options", "client_encoding", "TimeZone", "DateStyle"):
        behind = make_conninfo(foreign, host=str(scratch))
        async with await psycopg.AsyncConnection.connect(behind, autocommit=True) as plain:
            assert await parameters_of(plain) == FOREIGN
        async with opened(Database(settings_for(behind))) as database, database.transaction() as connection:
            assert await parameters_of(connection) == PARAMETERS
            assert connection.info.encoding == "utf-8"


@pytest.mark.parametrize("encoding", ["EUC_TW", "SJIS"])
async def test_an_encoding_that_python_lacks_is_no_hindrance(
    dsn: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER ROLE nimbus IN DATABASE {} SET client_encoding = {}").format(name, encoding))
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    assert await migrate(dsn) == []
    async with opened(Database(settings_for(dsn))) as database:
        await new_project(database)


async def test_a_migration_takes_the_time_that_it_needs(foreign: str) -> None:
    async with await connect(foreign, parameters=UNBOUNDED) as connection:
        found = await parameters_of(connection)
    assert {found[name] for name in found if name.endswith("_timeout")} == {"0"}


async def test_a_schema_of_its_own_is_where_the_search_path_says(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path TO own, public").format(name))
        connection.execute("CREATE SCHEMA own")
    async with opened(Database(settings_for(dsn + "&options=-csearch_path%3Dpublic"))) as database:
        await Partitions(database).ensure([month_of(NOW)])
    assert await migrate(dsn)
    async with opened(Database(settings_for(dsn))) as database:
        project = await new_project(database)
        # Where `public` has a month of that name.
        assert await append(EventLog(database, Partitions(database)), project, [new_event(NOW)]) == 1
        async with database.transaction() as connection:
            counts = "SELECT (SELECT count(*) FROM own.events), (SELECT count(*) FROM public.events)"
            assert await (await connection.execute(counts)).fetchone() == (1, 0)

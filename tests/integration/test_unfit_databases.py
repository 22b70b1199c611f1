"""A database that Nimbus can't use is refused in a sentence, by commands and by calls."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from storage import opened, settings_for
from streaming import until

from nimbus_server.errors import NimbusError, Reason, StartupError
from nimbus_server.importer.store import check_project
from nimbus_server.postgres import database as module
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.migrate import migrate, status
from nimbus_server.postgres.notifications import PostgresBus
from nimbus_server.postgres.session import connect, refuse_unfit
from nimbus_server.tail.store import newest_projects


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls before a connection was tried does not wait for long."""
    monkeypatch.setattr(module, "CHECKOUT_TIMEOUT_SECONDS", 0.5)


@asynccontextmanager
async def database_of(dsn_of: Callable[[str], str], name: str, encoding: str) -> AsyncIterator[str]:
    """A database of this encoding, gone afterwards."""
    create = sql.SQL("CREATE DATABASE {} ENCODING {} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    async with await psycopg.AsyncConnection.connect(dsn_of("postgres"), autocommit=True) as connection:
        await connection.execute(create.format(sql.Identifier(name), encoding))
        yield dsn_of(name)
        await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def refused(database: Database, said: str) -> float:
    """Seconds until a call was refused with these words."""
    started = time.monotonic()
    with pytest.raises(NimbusError, match=said) as error:
        async with database.transaction():
            pass
    assert error.value.reason is Reason.STORAGE_UNAVAILABLE
    return time.monotonic() - started


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
async def test_another_encoding_than_utf8(dsn_of: Callable[[str], str], encoding: str) -> None:
    said = rf"has the encoding {encoding}.*CREATE DATABASE.*ENCODING 'UTF8'.*NIMBUS_DATABASE_URL"
    async with database_of(dsn_of, f"test_{uuid4().hex[:8]}", encoding) as dsn:
        settings = settings_for(dsn)
        for attempt in (
            migrate(dsn),
            status(dsn),
            check_project(settings, uuid4()),
            newest_projects(settings),
            refuse_unfit(dsn, 2),
        ):
            with pytest.raises(StartupError, match=said):
                await attempt
        with pytest.raises(ConnectionError, match=said):
            await PostgresBus(settings).publish([uuid4()])
        async with opened(Database(settings)) as database:
            await refused(database, said)
            assert await refused(database, said) < 0.3, "it is known by now"


async def test_calls_go_through_once_the_database_is_replaced(dsn_of: Callable[[str], str]) -> None:
    name = f"test_{uuid4().hex[:8]}"
    async with database_of(dsn_of, name, "LATIN1") as dsn:
        database = Database(settings_for(dsn))
        await database.open()
        await refused(database, "LATIN1")
    async with database_of(dsn_of, name, "UTF8"):
        await until(lambda: database._unfit is None)
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
        await database.close()


async def test_a_role_that_is_set_to_what_it_may_not_change_itself(dsn_of: Callable[[str], str], dsn: str) -> None:
    said = "refuses a session as Nimbus needs it: .*session_replication_role"
    name = f"test_{uuid4().hex[:8]}"
    theirs = make_conninfo(dsn, user=name)
    with psycopg.connect(dsn_of("postgres"), autocommit=True) as administrator:
        administrator.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        administrator.execute(
            sql.SQL("ALTER ROLE {} SET session_replication_role TO replica").format(sql.Identifier(name))
        )
        with pytest.raises(StartupError, match=said):
            await status(theirs)
        async with opened(Database(settings_for(theirs))) as database:
            await refused(database, said)
        administrator.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(name)))
    async with await connect(theirs) as connection:
        assert connection.info.user == name


async def test_what_is_no_connection_string() -> None:
    for attempt in (
        migrate("nonsense"),
        status("nonsense"),
        refuse_unfit("nonsense", 2),
        newest_projects(settings_for("nonsense")),
        check_project(settings_for("nonsense"), uuid4()),
    ):
        with pytest.raises(StartupError, match="NIMBUS_DATABASE_URL is not a connection string"):
            await attempt
    with pytest.raises(StartupError, match="NIMBUS_DATABASE_URL is not a connection string"):
        Database(settings_for("nonsense"))


async def test_one_that_is_away_may_come_yet(scratch: Path) -> None:
    await refuse_unfit(f"postgresql:///nimbus?host={scratch}", 2)

"""Migrations: each once, whole or not at all, whoever else migrates meanwhile."""

import asyncio
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb
from storage import NOW, opened, settings_for

from nimbus_server.errors import StartupError
from nimbus_server.postgres import migrate as module
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.migrate import Migration, known_migrations, migrate, missing, status
from nimbus_server.postgres.partitions import Partitions, month_of, next_month

# As the version before 0004_context has it.
COPY_BEFORE = "COPY events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, props) FROM STDIN"
NAMES = [migration.name for migration in known_migrations()]


async def tables(dsn: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        found = await connection.execute("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")
        return {name for (name,) in await found.fetchall() if not name.startswith(("pg_", "sql_"))}


@pytest.fixture
async def empty_dsn(dsn: str) -> str:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("DROP SCHEMA public CASCADE")
        await connection.execute("CREATE SCHEMA public")
    return dsn


def set_known(monkeypatch: pytest.MonkeyPatch, *migrations: Migration) -> None:
    monkeypatch.setattr(module, "known_migrations", lambda: list(migrations))


async def test_an_empty_database_gets_every_migration_in_order(empty_dsn: str) -> None:
    assert await status(empty_dsn) == [(name, False) for name in NAMES]
    assert await migrate(empty_dsn) == NAMES == sorted(NAMES)
    assert await status(empty_dsn) == [(name, True) for name in NAMES]
    assert {"events", "event_counts", "event_keys", "streams", "projects", "api_keys"} <= await tables(empty_dsn)


async def test_a_second_time_there_is_nothing_to_do(dsn: str) -> None:
    before = await tables(dsn)
    assert await migrate(dsn) == []
    assert await tables(dsn) == before


async def test_of_many_at_once_one_migrates_and_the_others_find_it_done(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_dsn) for _ in range(5)))
    assert sorted(applied) == [[], [], [], [], NAMES]


async def test_an_applied_file_that_was_edited_is_refused_and_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = known_migrations()
    edited = replace(first, text=first.text + " ")
    set_known(monkeypatch, edited, *rest, Migration("9999_next", "CREATE TABLE next ()"))
    with pytest.raises(StartupError, match=f"Migration {first.name} was edited"):
        await migrate(dsn)
    assert "next" not in await tables(dsn)


@pytest.mark.parametrize(
    ("failure", "said"),
    [("SELECT 1 / 0", "division by zero"), ("INSERT INTO schema_migrations VALUES ('9999_bad', '')", "duplicate key")],
    ids=["in the file", "in the record of it"],
)
async def test_a_failing_migration_leaves_nothing_and_those_before_it_stay(
    dsn: str, monkeypatch: pytest.MonkeyPatch, failure: str, said: str
) -> None:
    known = known_migrations()
    good = Migration("9998_good", "CREATE TABLE good ()")
    bad = Migration("9999_bad", f"CREATE TABLE half (); {failure}; CREATE TABLE other_half ()")
    set_known(monkeypatch, *known, good, bad)
    with pytest.raises(StartupError, match=f"rolled back.*{said}"):
        await migrate(dsn)
    assert {"good", "half", "other_half"} & await tables(dsn) == {"good"}
    assert (await status(dsn))[-2:] == [("9998_good", True), ("9999_bad", False)]

    set_known(monkeypatch, *known, good, replace(bad, text="CREATE TABLE half ()"))
    assert await migrate(dsn) == ["9999_bad"]


async def test_a_migration_waits_for_a_table_no_longer_than_calls_can_wait_behind_it(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    set_known(monkeypatch, *known_migrations(), Migration("9999_next", "ALTER TABLE users ADD COLUMN next text"))
    async with await psycopg.AsyncConnection.connect(dsn) as dump:
        await dump.execute("SELECT 1 FROM users")
        async with asyncio.timeout(10):
            with pytest.raises(StartupError, match=r"rolled back, because a table .* run `nimbus migrate` again"):
                await migrate(dsn)
    assert await migrate(dsn) == ["9999_next"]


async def test_addresses_that_had_one_user_stay_their_users(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        set_known(before, *(m for m in known_migrations() if m.name < "0003"))
        await migrate(empty_dsn)
    add = "INSERT INTO users (id, email, password_hash) VALUES (gen_random_uuid(), %s, '')"
    async with await psycopg.AsyncConnection.connect(empty_dsn, autocommit=True) as connection:
        for address in ("Ada@example.com", "\u0130@example.com", "\u00c9@example.com"):
            await connection.execute(add, (address,))
        assert await migrate(empty_dsn) == [name for name in NAMES if name >= "0003"]
        for address in ("i@example.com", "i\u0307@example.com", "\u00e9@example.com"):
            await connection.execute(add, (address,))
        for address in ("aDA@EXAMPLE.com", "I@example.com", "\u0130@example.COM"):
            with pytest.raises(psycopg.errors.UniqueViolation):
                await connection.execute(add, (address,))
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.execute(
            """EXPLAIN SELECT id FROM users WHERE lower(email COLLATE "C") = lower('ada@example.com' COLLATE "C")"""
        )
        assert "users_email_identity" in str(await plan.fetchall())


async def test_workers_of_the_version_before_write_on_while_events_get_their_context(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = known_migrations()
    before = [migration for migration in migrations if migration.name < "0004"]
    set_known(monkeypatch, *before)
    await migrate(empty_dsn)
    set_known(monkeypatch, *migrations)
    row = ("00000000-0000-0000-0000-000000000001", NOW, NOW, "n", {"n": 1})
    async with (
        await psycopg.AsyncConnection.connect(empty_dsn) as old,
        opened(Database(settings_for(empty_dsn))) as new,
    ):
        await Partitions(new).ensure([month_of(NOW)])
        migrating = None
        for seq in range(1, 4):
            async with old.cursor().copy(COPY_BEFORE) as copy:
                await copy.write_row((*row[:2], str(UUID(int=seq)), seq, row[2], row[3], None, None, Jsonb(row[4])))
                if seq == 2:
                    # It waits for this transaction, and no longer than that.
                    migrating = asyncio.create_task(migrate(empty_dsn))
                    await until_someone_waits(empty_dsn)
            await old.commit()
        assert migrating
        assert "0004_context" in await migrating
        await Partitions(new).ensure([next_month(month_of(NOW))])
        found = await old.execute("SELECT seq, props, anonymous_id, context FROM events ORDER BY seq")
        assert await found.fetchall() == [(seq, {"n": 1}, None, {}) for seq in range(1, 4)]
        columns = await old.execute(
            "SELECT DISTINCT array_agg(attname ORDER BY attnum) FROM pg_attribute "
            "WHERE attnum > 0 AND attrelid::regclass::text IN ('events', %s, %s) GROUP BY attrelid",
            (f"events_{month_of(NOW):%Y_%m}", f"events_{next_month(month_of(NOW)):%Y_%m}"),
        )
        (alike,) = await columns.fetchall()
        assert alike[0][-2:] == ["anonymous_id", "context"]


async def until_someone_waits(dsn: str) -> None:
    """Return once a statement waits for a lock."""
    query = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection, asyncio.timeout(20):
        while await (await connection.execute(query)).fetchone() is None:
            pass


async def test_a_server_sees_which_migrations_its_database_lacks(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await psycopg.AsyncConnection.connect(empty_dsn, autocommit=True) as connection:
        assert await missing(connection) == NAMES
        await migrate(empty_dsn)
        assert await missing(connection) == []
        set_known(monkeypatch, *known_migrations(), Migration("9999_next", "SELECT 1"))
        assert await missing(connection) == ["9999_next"]


async def test_a_database_of_a_newer_version_is_left_alone(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_known(monkeypatch)
    assert await migrate(dsn) == []
    assert await status(dsn) == []


async def test_a_database_that_is_away_is_said_to_be_away_without_its_password() -> None:
    with pytest.raises(StartupError, match="can't be reached") as failed:
        await migrate("postgresql://nimbus:hunter2@127.0.0.1:1/nimbus")
    assert "hunter2" not in str(failed.value)

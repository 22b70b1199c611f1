"""Migrations: `.sql` files applied in order of their names, forward only, each in a transaction, under one lock."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from nimbus_server.errors import StartupError
from nimbus_server.postgres.session import UNBOUNDED, connect

# Any constant that no other program on the database uses for an advisory lock.
ADVISORY_LOCK = 7_346_218_001
# Calls queue behind a migration that waits for a table, and give up after lock_timeout: it gives up first.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '3s'"

CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`; `name` is its file name without the ending."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hex digest by which an edited file is told from the one that was applied."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """All migrations of this version, in the order in which they are applied."""
    folder = files("nimbus_server.postgres") / "migrations"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [Migration(f.name.removesuffix(".sql"), f.read_text(encoding="utf-8")) for f in found]


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing and return the names applied.

    Raises StartupError where the database can't be reached or used, an applied file was edited, a table is in use for
    long, or a migration fails; that migration then leaves nothing behind.
    """
    try:
        async with await connect(dsn, parameters=UNBOUNDED) as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
            await connection.execute(CREATE_HISTORY)
            applied = await _applied(connection)
            pending = _pending(applied)
            for migration in pending:
                async with connection.transaction():
                    await connection.execute(LOCK_TIMEOUT)
                    await connection.execute(sql.SQL(migration.text))
                    await connection.execute(
                        "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)",
                        (migration.name, migration.sha256),
                    )
            return [m.name for m in pending]
    except psycopg.errors.LockNotAvailable:
        raise StartupError(
            "A migration was rolled back, because a table that it changes is in use by a long transaction, such as a "
            "dump: run `nimbus migrate` again when that has ended."
        ) from None
    except psycopg.OperationalError as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
    except psycopg.Error as error:
        raise StartupError(f"A migration failed and was rolled back: {error}".strip()) from error


async def status(dsn: str) -> list[tuple[str, bool]]:
    """Every known migration with whether it is applied, in order.

    Raises StartupError where the database can't be reached.
    """
    try:
        async with await connect(dsn) as connection:
            applied = await _applied(connection)
    except psycopg.OperationalError as error:
        raise StartupError(f"The database can't be reached: {error}".strip()) from error
    return [(m.name, m.name in applied) for m in known_migrations()]


async def missing(connection: psycopg.AsyncConnection[object]) -> list[str]:
    """Names of the migrations that this version needs and the database lacks."""
    applied = await _applied(connection)
    return [m.name for m in known_migrations() if m.name not in applied]


async def _applied(connection: psycopg.AsyncConnection[object]) -> dict[str, str]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return {}
        await cursor.execute("SELECT name, sha256 FROM schema_migrations")
        return dict(await cursor.fetchall())


def _pending(applied: dict[str, str]) -> list[Migration]:
    known = known_migrations()
    for migration in known:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise StartupError(
                f"Migration {migration.name} was edited after it was applied to this database. "
                "Restore the file; changes go into a new migration."
            )
    return [m for m in known if m.name not in applied]

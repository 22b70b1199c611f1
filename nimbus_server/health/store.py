"""What PostgreSQL says about itself."""

from nimbus_server.postgres import migrate
from nimbus_server.postgres.database import Database


class HealthStore:
    """Asks the database whether it will do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def missing_migrations(self) -> list[str]:
        """Names of the migrations that this version needs and the database lacks.

        Raises what Database.transaction does.
        """
        async with self._database.transaction() as connection:
            return await migrate.missing(connection)

    async def is_writable(self) -> bool:
        """Whether it takes writes: a standby before its promotion does not. Raises what Database.transaction does."""
        async with self._database.transaction() as connection:
            row = await (await connection.execute("SELECT current_setting('transaction_read_only') = 'off'")).fetchone()
            return row is not None and bool(row[0])

"""LISTEN and NOTIFY: tells every process of a database that logs have grown."""

from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from uuid import UUID

import psycopg

from nimbus_server.postgres.database import Database
from nimbus_server.settings import Settings

CHANNEL = "nimbus_log"
# Nothing is lost with it: polling finds what was committed.
NOT_DURABLE = "SET LOCAL synchronous_commit = off"
NOTIFY = "SELECT pg_notify(%s, project_id) FROM unnest(%s::text[]) AS project_id"


class PostgresBus:
    """Carries wake-ups over the database that is there anyway. One connection a process listens."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._dsn = settings.database_url.get_secret_value() if settings.database_url else ""
        self._database = database

    async def publish(self, project_ids: Collection[UUID]) -> None:
        """Tell of them, outside of whatever was committed.

        Raises ConnectionError, and what Database.transaction does.
        """
        try:
            async with self._database.transaction() as connection, connection.pipeline():
                await connection.execute(NOT_DURABLE)
                await connection.execute(NOTIFY, (CHANNEL, [project_id.hex for project_id in project_ids]))
        except psycopg.Error as error:  # its queue is full, say, because somebody listens and does not read
            raise ConnectionError(str(error).strip()) from error

    async def listen(self) -> AsyncIterator[UUID | None]:
        """What is told, for as long as the connection lasts; None at first, when it listens.

        Raises ConnectionError.
        """
        try:
            async with await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, application_name="nimbus listener", keepalives_idle=10, connect_timeout=5
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield None
                async for notification in connection.notifies():
                    with suppress(ValueError):  # others may use the channel too
                        yield UUID(notification.payload)
        except psycopg.Error as error:
            raise ConnectionError(str(error).strip()) from error

    async def close(self) -> None:
        """Nothing is held."""

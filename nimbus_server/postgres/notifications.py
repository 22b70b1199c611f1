"""LISTEN and NOTIFY: tells every process of a database that logs have grown."""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from uuid import UUID

import psycopg

from nimbus_server.errors import StartupError
from nimbus_server.postgres.session import Connection, connect
from nimbus_server.settings import Settings

CHANNEL = "nimbus_log"
NOTIFY = "SELECT pg_notify(%s, project_id) FROM unnest(%s::text[]) AS project_id"
# Nothing is lost with what is not on the disk yet: polling finds what was committed.
PARAMETERS = {"synchronous_commit": "off"}


class PostgresBus:
    """Carries wake-ups over the database that is there anyway: one connection a process listens, and one tells."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.database_url.get_secret_value() if settings.database_url else ""
        self._teller: Connection | None = None

    async def publish(self, project_ids: Collection[UUID]) -> None:
        """Tell of them, outside of whatever was committed. Raises ConnectionError."""
        try:
            if self._teller is None:
                self._teller = await self._connect("nimbus teller")
            await self._teller.execute(NOTIFY, (CHANNEL, [project_id.hex for project_id in project_ids]), prepare=True)
        except (psycopg.Error, StartupError) as error:  # the queue is full, say: somebody listens and does not read
            await self.close()
            raise ConnectionError(str(error).strip()) from error

    async def listen(self) -> AsyncGenerator[UUID | None, None]:
        """What is told, for as long as the connection lasts; None at first, when it listens.

        Raises ConnectionError.
        """
        try:
            async with await self._connect("nimbus listener") as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield None
                async with aclosing(connection.notifies()) as notifications:
                    async for notification in notifications:
                        with suppress(ValueError):  # others may use the channel too
                            yield UUID(notification.payload)
        except (psycopg.Error, StartupError) as error:
            raise ConnectionError(str(error).strip()) from error

    async def close(self) -> None:
        """Close the connection that tells."""
        if self._teller is not None:
            teller, self._teller = self._teller, None
            await teller.close()

    async def _connect(self, name: str) -> Connection:
        return await connect(
            self._dsn,
            parameters=PARAMETERS,
            application_name=name,
            keepalives_idle=10,
            connect_timeout=5,
        )

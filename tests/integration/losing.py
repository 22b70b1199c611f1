"""A database that loses connections around commits, as often as it is told."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import TypeVar

from psycopg.pq import TransactionStatus
from storage import at_commit, settings_for

from nimbus_server.errors import storage_unavailable
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import Connection

T = TypeVar("T")


class Loss(Enum):
    NONE = 0
    BEFORE_COMMIT = 1
    AFTER_COMMIT = 2


async def let_lose(dsn: str) -> None:
    """Prepare a database for Losing: PostgreSQL itself ends the connection, within the commit."""
    await at_commit(
        dsn,
        "IF current_setting('tests.lose', true) = 'on' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;",
    )


class Losing(Database):
    """Takes the next loss for each transaction, and none when there are no more."""

    def __init__(self, dsn: str, losses: Iterable[Loss] = ()) -> None:
        super().__init__(settings_for(dsn))
        self.losses = deque(losses)

    @asynccontextmanager
    async def begun_by(
        self, begin: Callable[[Connection, AsyncExitStack], Awaitable[T]]
    ) -> AsyncIterator[tuple[Connection, T]]:
        """See Database."""
        loss = self.losses.popleft() if self.losses else Loss.NONE
        async with super().begun_by(begin) as (connection, begun):
            if loss is Loss.BEFORE_COMMIT:
                await connection.execute("SET LOCAL tests.lose = on")
            yield connection, begun
            uncommitted = connection.info.transaction_status is TransactionStatus.INTRANS
            if loss is Loss.BEFORE_COMMIT and uncommitted:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        if loss is Loss.AFTER_COMMIT:
            raise storage_unavailable()

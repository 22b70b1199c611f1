"""The pool of connections, and what its failures mean to a caller."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, TypeVar

import psycopg
import structlog
from psycopg.abc import Params, QueryNoTemplate
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from nimbus_server.errors import NimbusError, Reason, overloaded, storage_unavailable
from nimbus_server.postgres.session import Connection, UnfitDatabaseError, connection_options, prepare
from nimbus_server.settings import Settings

log = structlog.get_logger(__name__)

# A caller waits this long for a connection before it is told that the database is not there.
CHECKOUT_TIMEOUT_SECONDS = 5.0
# Callers that may wait for a connection; one more is told that the server is overloaded.
MAX_WAITING = 1000
# Between attempts to connect while the database is away. After it the pool gives a connection up, and is told to look
# whether it needs one: the pauses of its own double each time, and would outlast the outage by as long again.
RECONNECT_SECONDS = 0.1

# What says that the database is away, full, or for the moment a standby that takes no writes.
AWAY = (
    psycopg.OperationalError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)

T = TypeVar("T")


class _EchoCursor(psycopg.AsyncCursor[Any]):
    """Logs each statement without its parameters, which may be secret."""

    # psycopg overloads it for template strings, which Python 3.11 does not have.
    async def execute(  # type: ignore[override]
        self, query: QueryNoTemplate, params: Params | None = None, **options: Any
    ) -> Self:
        log.info("sql", statement=query if isinstance(query, str) else str(query))
        return await super().execute(query, params, **options)


class Database:
    """A bounded pool over one PostgreSQL.

    Opening does not wait for the server: it may come later, go away and come back, and calls fail with
    STORAGE_UNAVAILABLE in between. Where Nimbus can't use the database as it is, they fail at once and say why.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("a database needs settings.database_url")
        dsn = settings.database_url.get_secret_value()
        self._pool = AsyncConnectionPool(
            dsn,
            min_size=min(2, settings.db_pool_size),
            max_size=settings.db_pool_size + settings.db_max_overflow,
            timeout=CHECKOUT_TIMEOUT_SECONDS,
            max_waiting=MAX_WAITING,
            configure=self._configure,
            reconnect_timeout=RECONNECT_SECONDS,
            reconnect_failed=AsyncConnectionPool.check,
            kwargs={
                **connection_options(dsn),
                "application_name": "nimbus",
                # Without these a network that swallows packets holds a connection for hours.
                "keepalives_idle": 10,
                "tcp_user_timeout": 15_000,
                "cursor_factory": _EchoCursor if settings.db_echo else psycopg.AsyncCursor,
            },
            open=False,
        )
        self._unfit: UnfitDatabaseError | None = None

    async def open(self) -> None:
        """Start connecting in the background."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection; calls that wait for one fail."""
        await self._pool.close(timeout=5)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed on a clean exit and rolled back on any exception.

        Raises NimbusError with OVERLOADED where too many wait already, STORAGE_UNAVAILABLE where the database can't
        be reached or is lost on the way, and DEADLINE_EXCEEDED where a statement runs too long.
        """
        async with self.begun_by(_begin) as (connection, _):
            yield connection

    @asynccontextmanager
    async def begun_by(
        self, begin: Callable[[Connection, AsyncExitStack], Awaitable[T]]
    ) -> AsyncIterator[tuple[Connection, T]]:
        """As `transaction`, with what `begin` returns: its first statement begins the transaction.

        For those who want to send more at once than the BEGIN. It may be called again, with another connection.
        """
        if self._unfit is not None:
            raise self._unavailable()
        try:
            async with AsyncExitStack() as stack:
                yield await self._connect(stack, begin)
        except TooManyRequests:
            raise overloaded() from None
        except psycopg.errors.QueryCanceled:
            raise NimbusError(
                Reason.DEADLINE_EXCEEDED, "The database took too long over this. Ask for less, or try again later."
            ) from None
        except psycopg.errors.ProgramLimitExceeded:
            raise  # an OperationalError too, but no attempt would go better
        except (*AWAY, PoolTimeout) as error:
            log.warning("database unavailable", error=str(error).strip())
            raise self._unavailable() from error

    def _unavailable(self) -> NimbusError:
        if self._unfit is None:
            return storage_unavailable()
        return NimbusError(Reason.STORAGE_UNAVAILABLE, str(self._unfit), retry_after_seconds=60.0)

    async def _configure(self, connection: Connection) -> None:
        try:
            await prepare(connection)
        except UnfitDatabaseError as error:
            self._unfit = error
            raise  # the pool logs it, and tries again
        self._unfit = None

    async def _connect(
        self, stack: AsyncExitStack, begin: Callable[[Connection, AsyncExitStack], Awaitable[T]]
    ) -> tuple[Connection, T]:
        """A connection whose transaction has begun; `stack` ends it.

        One that died while it was idle shows here, where nothing is lost yet, and the next one is taken.
        """
        for _ in range(self._pool.max_size):
            async with AsyncExitStack() as attempt:
                connection = await attempt.enter_async_context(self._pool.connection())
                try:
                    begun = await begin(connection, attempt)
                except psycopg.OperationalError:
                    if not connection.broken:
                        raise
                    continue
                stack.push_async_exit(attempt.pop_all())
                return connection, begun
        raise PoolTimeout("every connection was dead")


async def _begin(connection: Connection, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(connection.transaction())

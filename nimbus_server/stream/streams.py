"""The one way to open a stream, whatever it goes out over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

from nimbus_server.accounts.caller import Caller
from nimbus_server.consumers.store import ConsumerStore, Hold
from nimbus_server.errors import NimbusError
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.page import Shape
from nimbus_server.stream.rights import Rights
from nimbus_server.stream.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Named:
    """A consumer whose position the server keeps, and whether to `take_over` from a stream that it has."""

    name: str
    take_over: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream as it was asked for."""

    project_id: UUID
    start: Start
    shape: Shape
    heartbeat_seconds: float
    consumer: Named | None = None


class Streams:
    """Opens streams, and watches over the right to them."""

    def __init__(self, hub: Hub, rights: Rights, consumers: ConsumerStore) -> None:
        self._hub = hub
        self._rights = rights
        self._consumers = consumers

    @asynccontextmanager
    async def open(self, wanted: Wanted, caller: Caller) -> AsyncIterator[Subscription]:
        """A stream for someone who may read the project.

        Raises NimbusError with PROJECT_NOT_FOUND, POSITION_AHEAD, CONSUMER_BUSY, OVERLOADED, WORKER_UNAVAILABLE, and
        what Database.transaction does.
        """
        async with AsyncExitStack() as stack:
            position, hold = await self._position(wanted, stack)
            subscription = await stack.enter_async_context(
                self._hub.subscribe(wanted.project_id, position, wanted.shape, wanted.heartbeat_seconds)
            )
            stack.enter_context(self._rights.watching(subscription, caller, hold))
            yield subscription

    async def _position(self, wanted: Wanted, stack: AsyncExitStack) -> tuple[int, Hold | None]:
        project_id, named = wanted.project_id, wanted.consumer
        if named is None:
            return await self._hub.position_of(project_id, wanted.start), None
        position = await self._consumers.position(project_id, named.name)
        if position is None:
            position = await self._hub.position_of(project_id, wanted.start)
        hold = Hold(uuid4(), project_id, named.name)
        # Before it is taken: a client that goes away meanwhile may have it all the same.
        stack.push_async_callback(self._release, hold)
        return await self._consumers.hold(hold, position, take_over=named.take_over), hold

    async def _release(self, hold: Hold) -> None:
        # Whoever is cancelled, as by a client that goes away, has no time for it; and where the database is away it
        # lapses by itself.
        with suppress(NimbusError):
            await asyncio.shield(asyncio.ensure_future(self._consumers.release(hold)))

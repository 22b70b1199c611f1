"""Wakes streams, here and in other processes, when a log has grown. A wake-up that is lost costs a poll's time."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from typing import Protocol
from uuid import UUID

import structlog

from nimbus_server.errors import NimbusError
from nimbus_server.stream.hub import Hub

log = structlog.get_logger(__name__)

# From one message to the next: what is committed meanwhile goes into one, so that ingest pays little for it.
PUBLISH_INTERVAL_SECONDS = 0.02
RETRY_SECONDS = 1.0
NOT_SENT = "wake-ups are not sent; other workers find out by polling"
NOT_HEARD = "wake-ups are not heard; polling goes on"


class Bus(Protocol):
    """What carries wake-ups from process to process."""

    async def publish(self, project_ids: Collection[UUID]) -> None:
        """Tell of logs that have grown. Raises ConnectionError or NimbusError."""

    def listen(self) -> AsyncGenerator[UUID | None, None]:
        """What others tell, None whenever something may have been missed. Raises ConnectionError."""

    async def close(self) -> None:
        """Close its connections."""


class Wakeups:
    """Call `run` for as long as anything may be committed or read here."""

    def __init__(self, hub: Hub, bus: Bus) -> None:
        self._hub = hub
        self._bus = bus
        self._grown: set[UUID] = set()
        self._work = asyncio.Event()
        # What is broken, and has been logged.
        self._broken: set[str] = set()

    def committed(self, project_ids: Iterable[UUID]) -> None:
        """Something has been committed to these logs."""
        for project_id in project_ids:
            self._hub.wake(project_id)
            self._grown.add(project_id)
        self._work.set()

    async def run(self) -> None:
        """Tell others, and listen to them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            tasks.create_task(self._listen())

    async def close(self) -> None:
        """Close the connections."""
        await self._bus.close()

    async def _tell(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            grown, self._grown = self._grown, set()
            try:
                await self._bus.publish(grown)
                self._broken.discard(NOT_SENT)
            except (ConnectionError, NimbusError) as error:
                self._warn(NOT_SENT, error)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(PUBLISH_INTERVAL_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._bus.listen()) as heard:
                    async for project_id in heard:
                        self._broken.discard(NOT_HEARD)
                        if project_id is None:
                            self._hub.wake_all()
                        else:
                            self._hub.wake(project_id)
            except ConnectionError as error:
                self._warn(NOT_HEARD, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _warn(self, what: str, error: Exception) -> None:
        """Log it once, until it works again."""
        if what not in self._broken:
            self._broken.add(what)
            log.warning(what, error=str(error))

"""What tests of streams share: subscribers that note what they are sent, and checks of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from nimbus_server.errors import NimbusError
from nimbus_server.postgres.database import Database
from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Hub, Start
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Form, Shape
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.subscription import Subscription

EVERYTHING = EventFilter()
EARLIEST = Start(after_seq=0)
CONDITION_SECONDS_MAX = 10.0


class Told(NamedTuple):
    """A message: the position reached, and the positions of its events."""

    position: int
    seqs: list[int]


def _batch(_project_id: UUID, events: Sequence[StreamedEvent], position: int) -> bytes:
    return orjson.dumps([position, [event.seq for event in events]])


# The least that tells what went out.
POSITIONS = Form(_batch, lambda position: orjson.dumps([position, []]))


def shape(which: EventFilter = EVERYTHING, batch_events_max: int = BATCH_EVENTS_MAX) -> Shape:
    return Shape(POSITIONS, which, batch_events_max)


async def until(true: Callable[[], Any], seconds_max: float = CONDITION_SECONDS_MAX) -> None:
    """Wait for a condition. Raises TimeoutError."""
    async with asyncio.timeout(seconds_max):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """The parts of a worker at work."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def running_hub(database: Database) -> AsyncIterator[Hub]:
    hub = Hub(LogReader(database))
    async with running(hub):
        yield hub


class Subscriber:
    """Reads a log of a hub's, and can be stopped at any moment and resumed with its last position.

    It takes what it is sent as long as it may: see `let`. `told` is all of it, over all its streams.
    """

    def __init__(self, hub: Hub, project: UUID, wanted: Shape | None = None, heartbeat_seconds: float = 1.0) -> None:
        self.hub = hub
        self.project = project
        self.shape = wanted or shape()
        self.heartbeat_seconds = heartbeat_seconds
        self.told: list[Told] = []
        self.first_position: int | None = None
        self.subscription: Subscription | None = None
        self.error: NimbusError | None = None
        self._may_read = asyncio.Semaphore(0)
        self._reads_all = False
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int | None:
        """What it would resume with."""
        return self.told[-1].position if self.told else None

    @property
    def seen(self) -> list[int]:
        """The events, by their positions."""
        return [seq for told in self.told for seq in told.seqs]

    @property
    def is_open(self) -> bool:
        """Whether it has a stream. Raises what was wrong with the last one."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
        return self._task is not None and not self._task.done()

    def open(self, start: Start) -> "Subscriber":
        """Open a stream: from where the last one was, or else from `start`."""
        assert not self.is_open
        self._task = asyncio.create_task(self._read(start if self.position is None else Start(self.position)))
        return self

    def let(self, messages: int | None = None) -> "Subscriber":
        """Let it take so many messages more, or all there are and will be."""
        self._reads_all = self._reads_all or messages is None
        for _ in range(1 if messages is None else messages):
            self._may_read.release()
        return self

    async def close(self) -> None:
        """Go away, at whatever point it is."""
        while self.is_open:
            assert self._task is not None
            self._task.cancel()
            # Again if need be: Python 3.11 may lose it where psycopg has got its answer just then.
            await asyncio.wait([self._task], timeout=0.1)

    async def reaches(self, position: int) -> None:
        """Wait until it has been told a position."""
        await until(lambda: self.position is not None and self.position >= position)

    async def _read(self, start: Start) -> None:
        try:
            position = await self.hub.position_of(self.project, start)
            opened = self.hub.subscribe(self.project, position, self.shape, self.heartbeat_seconds)
            async with opened as subscription, aclosing(subscription.messages()) as messages:
                self.subscription = subscription
                async for message in messages:
                    self._note(Told(*orjson.loads(message)))
                    if not self._reads_all:
                        await self._may_read.acquire()
        except NimbusError as error:
            self.error = error
        finally:
            self.subscription = None

    def _note(self, told: Told) -> None:
        if self.first_position is None:
            self.first_position = told.position
            assert told.seqs == [], "the first message says where it starts"
        before = self.position if self.position is not None else told.position
        assert told.position >= before, "positions never go back"
        reached = [before, *told.seqs, told.position]
        assert sorted(reached) == reached
        assert len({before, *told.seqs}) == len(told.seqs) + 1, "nothing is repeated"
        assert len(told.seqs) <= self.shape.batch_events_max
        self.told.append(told)


def check_told(told: Iterable[Told], first: int, stored: set[int], ever: set[int] | None = None) -> None:
    """Each position told has everything up to it before it.

    `stored` are the positions of matching events that are there still, `ever` those that were at some time.
    """
    seen: set[int] = set()
    for position, seqs in told:
        seen.update(seqs)
        assert seen <= (stored if ever is None else ever)
        assert {seq for seq in stored if first < seq <= position} <= seen

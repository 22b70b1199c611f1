"""One reader of a log, from a position on and without end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any
from uuid import UUID

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.stream.feed import Feed
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Message, Page, Shape
from nimbus_server.stream.store import WINDOW_POSITIONS, LogReader

RETRY_SECONDS = 0.5
# For a client to take what it has been sent, once its stream is to end. One that does not is cut off.
END_SECONDS_MAX = 5.0


class Subscription:
    """What a subscriber is sent: `position` is what it has been sent up to.

    It holds no more than one page as messages, and takes the next when it is asked for one. `on_cut_off` is told why,
    before whoever iterates over `messages` is cancelled because the client takes nothing.
    """

    def __init__(
        self,
        feed: Feed,
        reader: LogReader,
        turns: Sequence[asyncio.Semaphore],
        shape: Shape,
        position: int,
        heartbeat_seconds: float,
    ) -> None:
        self.position = position
        self.on_cut_off: Callable[[NimbusError], None] | None = None
        self._feed = feed
        self._reader = reader
        self._turns = turns
        self._shape = shape
        self._heartbeat_seconds = heartbeat_seconds
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._beat = False
        self._waiting: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[Page | None] | None = None
        self._limit = BATCH_EVENTS_MAX
        self._window: int | None = None
        self._ended: NimbusError | None = None
        self._ended_at = 0.0
        self._sender: asyncio.Task[Any] | None = None

    @property
    def project_id(self) -> UUID:
        """Whose log it is."""
        return self._feed.project_id

    def wake(self) -> bool:
        """There may be something to send. Says whether it waited for that, and was not busy."""
        if self._waiting is None or self._waiting.done():
            return False
        self._waiting.set_result(None)
        return True

    @property
    def filter(self) -> EventFilter:
        """Which events it carries."""
        return self._shape.filter

    def end(self, error: NimbusError) -> None:
        """Let `messages` raise this in place of the next message; a client that takes none is cut off in the end."""
        if self._ended is None:
            self._ended, self._ended_at = error, self._loop.time()
        self.wake()

    @property
    def has_ended(self) -> bool:
        """Whether it is not to send anything more."""
        return self._ended is not None

    def tick(self, now: float, tick_seconds: float) -> None:
        """Let it send a heartbeat that would be late on the next tick. `now` is in the event loop's time."""
        if now + tick_seconds >= self._silent_since + self._heartbeat_seconds:
            self._beat = True
            self.wake()
        if self._ended is not None and self._sender is not None and now > self._ended_at + END_SECONDS_MAX:
            if self.on_cut_off is not None:
                self.on_cut_off(self._ended)
            self._sender.cancel()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Messages in the shape asked for; the first one is a heartbeat, which says where this starts.

        Raises NimbusError with whatever it was ended with.
        """
        self._sender = asyncio.current_task()
        try:
            yield self._heartbeat()
            while True:
                # Not the page itself: a reader that takes its time would hold it all the while.
                messages, last = await self._next_messages()
                for data, position in messages:
                    self._raise_if_ended()
                    self.position = position
                    self._spoken()
                    yield data
                # Nor what was sent, while there is nothing else to send.
                messages, data = (), b""
                self.position = last
                if self._beat:
                    yield self._heartbeat()
        finally:
            self._sender = None
            if self._reading is not None:
                self._reading.cancel()

    async def _next_messages(self) -> tuple[Sequence[Message], int]:
        page = await self._next_page()
        return (await page.messages(self._shape), page.last) if page else ((), self.position)

    async def _next_page(self) -> Page | None:
        """What follows, or None after a while in which nothing did."""
        self._raise_if_ended()
        if self.position < self._feed.start:
            return await self._replay()
        page = self._feed.page_at(self.position)
        if page is None:
            await self._wait()
            self._raise_if_ended()
            self.position = self._feed.waited_at(self.filter, self.position)
        return page

    async def _replay(self) -> Page | None:
        """What is stored next, or None where there is something else to do meanwhile."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._has_read)
        if not self._reading.done():
            await self._wait()
            self._raise_if_ended()
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        return reading.result()

    async def _read(self) -> Page | None:
        which, after = self._shape.filter, self.position
        own, everyones = self._turns
        try:
            async with own, everyones:
                found = await self._reader.page(self.project_id, after, which, self._limit, self._window)
        except NimbusError as error:
            too_much = error.reason is Reason.DEADLINE_EXCEEDED
            if error.reason is Reason.PROJECT_NOT_FOUND or (too_much and self._window == 1):
                raise
            if too_much:
                # Less at a time: the filter is a hard one, or the disk a slow one.
                self._window = max(1, (self._window or WINDOW_POSITIONS) // 10)
                return None
            # The database will be back, and the reader has nothing to gain from being sent away.
            await asyncio.sleep(RETRY_SECONDS)
            return None
        if found.position == after:
            # The log ends before where this is: whoever polls it will say so.
            await asyncio.sleep(RETRY_SECONDS)
            return None
        self._limit = found.limit_behind(BATCH_EVENTS_MAX)
        return Page(self.project_id, after, found.position, found.events, matching={which: found.events})

    def _has_read(self, reading: asyncio.Task[Page | None]) -> None:
        if not reading.cancelled():
            reading.exception()  # nobody asks for it where the stream ended meanwhile
        self.wake()

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _heartbeat(self) -> bytes:
        self._spoken()
        return self._shape.form.heartbeat(self.position)

    def _spoken(self) -> None:
        self._silent_since = self._loop.time()
        self._beat = False

    def _raise_if_ended(self) -> None:
        if self._ended is not None:
            raise self._ended

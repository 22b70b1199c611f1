"""The end of one project's log as this process has read it."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from uuid import UUID

import structlog

from nimbus_server.errors import NimbusError
from nimbus_server.stream.filter import EVERYTHING, EventFilter
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Page
from nimbus_server.stream.store import LogReader

log = structlog.get_logger(__name__)

# From the end of the log to the next look at it, at least: what is committed meanwhile is read at once.
PAUSE_SECONDS = 0.01
# The same where nobody waited for what came last.
UNWANTED_PAUSE_SECONDS = 0.025
# To all subscribers of a project together; about what a process can send. Where one is read by very many, more comes of
# waiting a little for more events a message than of more messages.
MESSAGES_PER_SECOND_MAX = 5_000
# After a failure of the database. Polling would find out as well, but later.
RETRY_SECONDS = 0.5
# Positions of subscribers for which what follows is put together once for all who are there.
SHARED_MAX = 32
SHARED_BYTES_MAX = 1024 * 1024


class Feed:
    """A ring of the newest pages, without a gap between them, for subscribers that keep up.

    One that falls behind its `start` reads the log itself. `on_page` is called whenever a page has been added, to wake
    subscribers, and says how many of them had waited.
    """

    def __init__(
        self, reader: LogReader, project_id: UUID, position: int, on_page: Callable[[Page], Awaitable[int]]
    ) -> None:
        self.project_id = project_id
        self.start = self.end = position
        self._reader = reader
        self._on_page = on_page
        self._pages: deque[Page] = deque()
        self._shared: dict[int, Page] = {}
        self._passed: dict[EventFilter, tuple[int, int]] = {}
        self._next_at = 0.0
        self._size = self._size_max = 0
        self._work = asyncio.Event()
        self._closed = False

    def wake(self) -> None:
        """Look whether there is more: something has been committed."""
        self._work.set()

    def close(self) -> None:
        """Let `run` end even where its cancellation is lost.

        It may be, in Python 3.11 (https://github.com/python/cpython/issues/81839), if a connection is free just then.
        """
        self._closed = True
        self._work.set()

    def page_at(self, position: int) -> Page | None:
        """What follows on a position from `start` on; None where it is the end."""
        if position >= self.end:
            return None
        page = self._shared.get(position)
        if page is None:
            page = self._from(position)
            if len(self._shared) < SHARED_MAX:
                self._shared[position] = page
        return page

    def _from(self, position: int) -> Page:
        number = len(self._pages) - 1
        if self._pages[number].after > position:
            number = bisect_right(self._pages, position, key=lambda page: page.last)
        page = self._pages[number]
        if page.after < position:
            page = page.behind(position)
        # Whoever is late gets much at once, which costs both sides little more than one event does.
        events, last, size = [*page.events], page.last, page.size
        for following in islice(self._pages, number + 1, None):
            size += following.size
            if len(events) + len(following.events) > BATCH_EVENTS_MAX or size > SHARED_BYTES_MAX:
                break
            events += following.events
            last = following.last
        return page if last == page.last else Page(self.project_id, position, last, events)

    def pass_over(self, which: EventFilter, page: Page) -> None:
        """Nothing in the newest page matches: whoever waits for it need not be woken."""
        if page.last != self.end:
            return  # the log has lost it meanwhile
        start, end = self._passed.get(which, (page.after, page.after))
        self._passed[which] = (start if end == page.after else page.after, page.last)

    def waited_at(self, which: EventFilter, position: int) -> int:
        """Up to where nothing matched while somebody waited at a position."""
        start, end = self._passed.get(which, (position, position))
        return end if start <= position <= end else position

    def forget(self, which: EventFilter) -> None:
        """Nobody asks for what matches this any more."""
        self._passed.pop(which, None)

    def shrink(self, bytes_max: int) -> None:
        """Forget the oldest pages, now and later, while all take more than this; the newest stays until `tidy`."""
        self._size_max = bytes_max
        self._forget(1)

    def tidy(self) -> None:
        """Forget the newest page too, where that alone takes too much, and what was put together for those behind.

        Whoever waited for it has long taken it.
        """
        self._shared.clear()
        self._forget(0)

    def go_back(self, position: int) -> None:
        """Begin anew at a position that lies before the end: the database has lost what came behind it."""
        for page in self._pages:
            page.on_growth = _of_no_interest
        self._pages.clear()
        self._shared.clear()
        self._passed.clear()
        self._size = 0
        self.start = self.end = position

    def _forget(self, keep: int) -> None:
        while self._size > self._size_max and len(self._pages) > keep:
            oldest = self._pages.popleft()
            oldest.on_growth = _of_no_interest
            self._size -= oldest.size
            self.start = oldest.last

    async def run(self) -> None:
        """Read what is committed, until cancelled."""
        while True:
            await self._work.wait()
            if self._closed:
                return
            self._work.clear()
            try:
                await self._catch_up()
            except NimbusError:
                pass  # where the project is gone for good, who watches over rights tells the subscribers
            except Exception:
                # Without it the subscribers would wait for ever, and nobody would know why.
                log.exception("defect in a feed", project_id=str(self.project_id))
            else:
                continue
            await asyncio.sleep(RETRY_SECONDS)
            self._work.set()

    async def _catch_up(self) -> None:
        loop = asyncio.get_running_loop()
        limit, more = BATCH_EVENTS_MAX, True
        while more:
            await asyncio.sleep(self._next_at - loop.time())
            after = self.end
            found = await self._reader.page(self.project_id, after, EVERYTHING, limit)
            if found.position == after or self.end != after or self._closed:
                return
            page = Page(self.project_id, after, found.position, found.events, self._grow)
            self._add(page)
            woken = await self._on_page(page)
            pause = woken / MESSAGES_PER_SECOND_MAX
            if not found.more:
                pause = max(pause, PAUSE_SECONDS if woken else UNWANTED_PAUSE_SECONDS)
            self._next_at = loop.time() + pause
            limit, more = found.limit_behind(BATCH_EVENTS_MAX), found.more

    def _add(self, page: Page) -> None:
        self._pages.append(page)
        self._size += page.size
        self.end = page.last
        self._shared.clear()

    def _grow(self, growth: int) -> None:
        self._size += growth
        self._forget(1)


def _of_no_interest(_growth: int) -> None:
    pass

"""All streams of this process: who reads which log, and what wakes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from nimbus_server.errors import NimbusError, Reason, position_ahead, worker_unavailable
from nimbus_server.stream.channel import Channel
from nimbus_server.stream.feed import Feed
from nimbus_server.stream.page import BATCH_EVENTS_MAX, Page, Shape
from nimbus_server.stream.store import LogReader
from nimbus_server.stream.subscription import Subscription

log = structlog.get_logger(__name__)

# Beneath the wake-ups: what a lost one costs at most.
POLL_SECONDS = 1.0
# A heartbeat that would be late with the next tick goes out with this one.
TICK_SECONDS = 1.0
# Of the pages that all feeds keep together.
RING_BYTES_MAX = 64 * 1024 * 1024
SUBSCRIBERS_MAX = 10_000
# What one project may have of them, so that the others always find room.
PROJECT_SHARE = 0.5
# Readers of stored pages at a time: each takes a connection and, while it encodes, the processor.
REPLAYS_MAX = 4
# How far times of arrival may be out of order: the longest wait for a commit, and clocks of several hosts.
ARRIVAL_DISORDER = timedelta(seconds=15)
# Before every event, and yet no time at which there are none earlier.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream starts: behind `after_seq`, or else at `since`, or else at the end; 0 is the beginning."""

    after_seq: int | None = None
    since: datetime | None = None


class Hub:
    """Keeps a feed for each project that has a subscriber here. Call `run` for as long as there may be any."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._channels: dict[UUID, Channel] = {}
        self._replays = asyncio.Semaphore(REPLAYS_MAX)
        self._count = 0
        self._draining = False

    async def position_of(self, project_id: UUID, start: Start) -> int:
        """The position at which a stream starts.

        Raises NimbusError with PROJECT_NOT_FOUND, POSITION_AHEAD, and what Database.transaction does.
        """
        if start.after_seq is None and start.since is not None:
            earlier = max(start.since, EARLIEST) - ARRIVAL_DISORDER
            return await self._reader.position_before(project_id, start.since, earlier)
        last_seq = await self._reader.last_seq(project_id)
        if start.after_seq is None:
            return last_seq
        if start.after_seq > last_seq:
            raise position_ahead(start.after_seq, last_seq)
        return start.after_seq

    @asynccontextmanager
    async def subscribe(
        self, project_id: UUID, position: int, shape: Shape, heartbeat_seconds: float
    ) -> AsyncIterator[Subscription]:
        """A subscription from a position of the log on.

        Raises NimbusError with OVERLOADED where there are too many, WORKER_UNAVAILABLE while this process stops.
        """
        # Before the checks: others may come, or the end of this process, while this is asked.
        last_seq = 0 if project_id in self._channels else await self._reader.last_seq(project_id)
        if self._draining:
            raise worker_unavailable()
        of_project = self._channels[project_id].size if project_id in self._channels else 0
        if self._count >= SUBSCRIBERS_MAX or of_project >= SUBSCRIBERS_MAX * PROJECT_SHARE:
            raise NimbusError(
                Reason.OVERLOADED,
                f"This worker has {self._count} streams open, {of_project} of them of this project, and takes no more. "
                "Try again: another worker may.",
                retry_after_seconds=1.0,
            )
        if project_id not in self._channels:
            # Live from here on. The last page before goes with it: where all subscribers of a worker that ended come
            # here at once, most of them lack no more than that, and each of them would have to read it.
            self._open(project_id, max(0, last_seq - BATCH_EVENTS_MAX))
        channel = self._channels[project_id]
        turns = channel.replays, self._replays
        subscription = Subscription(channel.feed, self._reader, turns, shape, position, heartbeat_seconds)
        channel.add(subscription)
        self._count += 1
        try:
            yield subscription
        finally:
            self._count -= 1
            channel.discard(subscription)
            if not channel.groups:
                self._close(project_id, channel)

    def wake(self, project_id: UUID) -> None:
        """Something has been committed to this log."""
        if channel := self._channels.get(project_id):
            channel.feed.wake()

    def wake_all(self) -> None:
        """Something may have been committed to any log: wake-ups may have been lost."""
        for channel in self._channels.values():
            channel.feed.wake()

    def end_all(self) -> None:
        """End every stream so that its client connects again at once, and take no more."""
        self._draining = True
        for subscription in self.subscriptions:
            subscription.end(worker_unavailable())

    @property
    def subscriptions(self) -> list[Subscription]:
        """All that are open."""
        return [s for channel in self._channels.values() for s in channel.subscriptions]

    async def run(self) -> None:
        """Poll for what no wake-up told of, and let heartbeats be sent in time, until cancelled."""
        # Apart: a database that does not answer keeps a poll for long.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick())
            tasks.create_task(self._poll())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for channel in self._channels.values():
                channel.feed.shrink(RING_BYTES_MAX // len(self._channels))
                channel.feed.tidy()
                for subscription in channel.subscriptions:
                    subscription.tick(loop.time(), TICK_SECONDS)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        # As they were before it is asked: what is read meanwhile is no sign of anything.
        ends = {project_id: channel.feed.end for project_id, channel in self._channels.items()}
        if not ends:
            return
        try:
            last_seqs = await self._reader.last_seqs(list(ends))
        except NimbusError:
            return  # the database is away; its own log line says so
        except Exception:
            log.exception("logs could not be polled")
            return
        for project_id, last_seq in last_seqs.items():
            channel = self._channels.get(project_id)
            if channel is None:
                continue
            if channel.feed.end < last_seq:
                channel.feed.wake()
            elif ends[project_id] > last_seq:
                self._end_behind(channel, ends[project_id], last_seq)

    def _end_behind(self, channel: Channel, end: int, last_seq: int) -> None:
        """The database was restored, or another one has taken its place: what was sent is not in the log any more."""
        log.warning("a log has lost its end", project_id=str(channel.feed.project_id), last_seq=last_seq, before=end)
        for subscription in channel.subscriptions:
            subscription.end(position_ahead(end, last_seq))
        channel.feed.go_back(last_seq)

    def _open(self, project_id: UUID, position: int) -> None:
        async def on_page(page: Page) -> int:
            channel.feed.shrink(RING_BYTES_MAX // len(self._channels))
            return await channel.offer(page)

        feed = Feed(self._reader, project_id, position, on_page)
        channel = Channel(feed, asyncio.create_task(feed.run()))
        self._channels[project_id] = channel
        # What has been committed since found nobody to wake.
        feed.wake()

    def _close(self, project_id: UUID, channel: Channel) -> None:
        channel.feed.close()
        channel.task.cancel()
        del self._channels[project_id]

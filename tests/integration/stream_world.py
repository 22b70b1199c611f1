"""A log with its writers, processes that stream it and readers, one step at a time."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import orjson
from storage import NOW, append, new_event
from streaming import Subscriber, check_told, shape, until

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Hub, Start

WRITERS_MAX = 4
NAMES, USERS = ["a", "b"], ["u", None]
FILTERS = [
    EventFilter(),
    EventFilter(names=frozenset({"a"})),
    EventFilter(user_id="u"),
    EventFilter(names=frozenset({"a", "c"}), user_id="u", props_json=b'{"n":1}'),
    EventFilter(props_json=b'{"n":2}'),
    EventFilter(names=frozenset({"none has it"})),
]


@dataclass
class World:
    """A log, two processes that stream it, its writers and readers; `events` are all that there ever were."""

    database: Database
    project: UUID
    hubs: list[Hub]
    logs: list[EventLog]
    events: dict[int, tuple[EventFilter | None, ...]] = field(default_factory=dict)
    received: dict[int, datetime] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    readers: list[Subscriber] = field(default_factory=list)
    starts: dict[Subscriber, tuple[Start, int]] = field(default_factory=dict)
    late: list[Hub] = field(default_factory=list)
    writing: list[asyncio.Task[None]] = field(default_factory=list)
    clock: int = 0

    @property
    def last_seq(self) -> int:
        return max(self.events, default=0)

    def matching(self, which: EventFilter) -> set[int]:
        return {seq for seq, filters in self.events.items() if which in filters}

    async def commit(self, count: int, wake_up: str) -> None:
        """In the background, beside the next steps: several writers at once."""
        await asyncio.gather(*self.writing[:-WRITERS_MAX])
        self.writing.append(asyncio.create_task(self._commit(self.clock, count, wake_up)))
        self.clock += 1

    async def _commit(self, moment: int, count: int, wake_up: str) -> None:
        log = self.logs[moment % len(self.logs)]
        tagged = [new_event(name=NAMES[n % 2], user_id=USERS[n // 2 % 2], props={"n": n % 3}) for n in range(count)]
        # Arrivals are not quite in the order of positions.
        await append(log, self.project, tagged, NOW + timedelta(seconds=moment))
        for one in self.hubs * (2 if wake_up == "delivered twice" else 1):
            if wake_up == "delayed":
                self.late.append(one)
            elif wake_up != "lost":
                one.wake(self.project)

    async def subscribe(self, start: str, place: float, which: EventFilter, batch_events_max: int) -> None:
        reader = Subscriber(self.hubs[len(self.readers) % 2], self.project, shape(which, batch_events_max))
        self.readers.append(reader)
        await self.look()
        starts = {
            "latest": Start(),
            "earliest": Start(after_seq=0),
            "after": Start(after_seq=round(place * self.last_seq)),
            "since": Start(since=NOW + timedelta(seconds=(self.clock + 2) * place - 1)),
        }
        self.starts[reader] = starts[start], self.last_seq
        reader.open(starts[start])

    async def read(self, which: int, messages: int) -> None:
        if self.readers:
            self.readers[which % len(self.readers)].let(messages)

    async def stop(self, which: int) -> None:
        if self.readers:
            await self.readers[which % len(self.readers)].close()

    async def resume(self, which: int) -> None:
        if self.readers and not (reader := self.readers[which % len(self.readers)]).is_open and reader.told:
            reader.open(Start())

    async def deliver_late(self) -> None:
        while self.late:
            self.late.pop().wake(self.project)

    async def poll(self) -> None:
        for one in self.hubs:
            await one._look()

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def retention(self, place: float, other: float) -> None:
        """Drop a stretch of what is there, wherever it lies."""
        low, high = sorted(round(p * self.last_seq) for p in (place, other))
        await self.look()
        self.dropped |= {seq for seq in self.events if low < seq <= high}
        async with self.database.transaction() as connection:
            await connection.execute(
                "DELETE FROM events WHERE project_id = %s AND seq > %s AND seq <= %s", (self.project, low, high)
            )

    async def look(self) -> None:
        """Note what is in the table, before any of it is dropped."""
        async with self.database.transaction() as connection:
            rows = await (
                await connection.execute(
                    "SELECT seq, name, user_id, props->'n', received_at FROM events WHERE project_id = %s",
                    (self.project,),
                )
            ).fetchall()
        for seq, name, user_id, n, received_at in rows:
            self.received[seq] = received_at
            self.events[seq] = tuple(
                which
                for which in FILTERS
                if (not which.names or name in which.names)
                and which.user_id in {None, user_id}
                and (not which.props_json or orjson.loads(which.props_json) == {"n": n})
            )

    async def end(self) -> None:
        """Let every reader have everything, and check it."""
        await asyncio.gather(*self.writing)
        await self.look()
        for reader in self.readers:
            if not reader.is_open:
                reader.open(self.starts[reader][0])
            reader.let()
        for one in self.hubs:
            one.wake_all()
        for reader in self.readers:
            await until(lambda reader=reader: self._is_through(reader))
            stored = self.matching(reader.shape.filter)
            assert reader.first_position is not None
            self._check_start(reader.first_position, *self.starts[reader])
            check_told(reader.told, reader.first_position, stored - self.dropped, stored)
            await reader.close()
        assert [(one._channels, one._count) for one in self.hubs] == [({}, 0)] * 2

    def _check_start(self, position: int, start: Start, last_seq: int) -> None:
        if start.after_seq is not None:
            assert position == start.after_seq
        elif start.since is None:
            assert position >= last_seq
        else:
            before = {seq for seq in self.events if seq <= position} - self.dropped
            assert all(self.received[seq] < start.since for seq in before)

    def _is_through(self, reader: Subscriber) -> bool:
        assert reader.error is None
        if reader.subscription:
            reader.subscription.tick(asyncio.get_running_loop().time(), 1e9)
        return reader.position is not None and reader.position >= self.last_seq

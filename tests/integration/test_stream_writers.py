"""Eight writers whose commits take their time, readers that are killed and come back: each log is seen as it is."""

import asyncio
import random
from contextlib import AsyncExitStack

from storage import append, at_commit, log_of, new_event, new_project, opened, settings_for
from streaming import EARLIEST, Subscriber, check_told, running_hub, shape

from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.hub import Hub

WRITERS = 8
BATCHES = 15


async def test_readers_that_are_killed_and_come_back_see_what_eight_writers_wrote(dsn: str) -> None:
    # Each commit takes another while.
    await at_commit(dsn, "PERFORM pg_sleep(random() * 0.01);")
    async with AsyncExitStack() as stack:
        reading, writing = [await stack.enter_async_context(opened(Database(settings_for(dsn)))) for _ in range(2)]
        hubs = [await stack.enter_async_context(running_hub(reading)) for _ in range(2)]
        project, log = await new_project(reading), EventLog(writing, Partitions(writing))
        wanted = [EventFilter(), EventFilter(), EventFilter(names=frozenset({"a"}))]
        readers = [
            Subscriber(hub, project, shape(which, random.choice([1, 7, 500]))) for hub in hubs for which in wanted
        ]

        async def write() -> None:
            for _ in range(BATCHES):
                await append(log, project, [new_event(name=random.choice("ab")) for _ in range(random.randint(1, 30))])
                for hub in random.sample(hubs, random.randint(0, 2)):
                    hub.wake(project)

        async def read(reader: Subscriber, hub: Hub) -> None:
            reader.let()
            while not written.done():
                reader.hub = random.choice([hub, *hubs])
                reader.open(EARLIEST)
                await asyncio.wait([written], timeout=random.random() * 0.05)
                await reader.close()
            reader.open(EARLIEST)

        written = asyncio.gather(*(write() for _ in range(WRITERS)))
        await asyncio.gather(*(read(reader, reader.hub) for reader in readers))
        await written
        events = await log_of(reading, project)
        for reader in readers:
            await reader.reaches(len(events))
            stored = [e.seq for e in events if not reader.shape.filter.names or e.name in reader.shape.filter.names]
            assert reader.seen == stored
            check_told(reader.told, 0, set(stored))
            await reader.close()
        assert [hub._channels for hub in hubs] == [{}, {}]

"""Logs whose events are stored, exported, compacted and erased by what does so in production, and questions to them."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from oracle.source import json_text
from storage import new_project, opened, origin_of, running_ingest, settings_for

from nimbus.v1 import analysis_service_pb2
from nimbus_server import strict_json
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.memory import Budget
from nimbus_server.analyst.state import state
from nimbus_server.clock import micros, moment
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.compact import Compactor
from nimbus_server.segments.erase import Eraser
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.manifest import Erasure, IdentityField
from nimbus_server.segments.store import SegmentStore
from nimbus_server.segments.upkeep_store import UpkeepStore

Event = dict[str, Any]

# All events are older.
RECEIVED_AT = datetime(2027, 1, 1, tzinfo=UTC)
BUDGET = Budget(threads=1, memory_bytes=512 * 1000**2, disk_bytes=1000**3)
EVENTS_AT_ONCE = 1_000
RPCS = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"].methods_by_name
STORED = """
SELECT seq, ts, name, user_id, anonymous_id, props::text, context::text FROM events
WHERE project_id = %s AND seq > %s ORDER BY seq
"""


@dataclass
class World:
    """What all logs of a module share."""

    dsn: str
    database: Database
    ingest: Ingest
    engine: Engine
    folder: Path

    async def new_log(self, now: datetime) -> "Log":
        """The empty log of a new project; at `now` some of its events are late."""
        return Log(self, await new_project(self.database), now)


class Log:
    """One project's log. `events` are those that an answer must be made of."""

    def __init__(self, world: World, project: UUID, now: datetime) -> None:
        self.events: list[Event] = []
        self._world = world
        self._project = project
        self._store, self._upkeep = SegmentStore(world.database), UpkeepStore(world.database)
        conninfo = plain_conninfo(world.dsn, "nimbus tests")
        self._exporter = Exporter(self._store, conninfo, world.folder, lambda: now)
        # Every day and month is over, and most share segments with their month.
        self._compactor = Compactor(self._store, world.folder, lambda: RECEIVED_AT)
        self._eraser = Eraser(self._store, self._upkeep, world.folder)
        self._stored = 0
        self._erasures: list[Erasure] = []

    async def store(self, events: Sequence[Event]) -> None:
        """Send events, in requests of as many as may be in one."""
        for first in range(0, len(events), EVENTS_AT_ONCE):
            sent = strict_json.loads(json_text([*map(_sent, events[first : first + EVENTS_AT_ONCE])]).encode())
            origin = origin_of(at=RECEIVED_AT)
            batch = decode_json(sent, origin)
            assert not batch.refusals
            await self._world.ingest.store(self._project, batch, origin)
        async with self._world.database.transaction() as connection:
            rows = await (await connection.execute(STORED, (self._project, self._stored))).fetchall()
        assert len(rows) == len(events)
        self._stored += len(rows)
        self.events += [_stored(*row) for row in rows]

    async def export(self, positions: int) -> None:
        """Export up to so many positions."""
        await self._exporter.export(self._project, positions)

    async def compact(self) -> None:
        """Merge what is worth it."""
        await self._compactor.compact(self._project)

    async def rebuild(self) -> None:
        """Give up all segments."""
        await self._upkeep.rebuild(self._project)

    async def erase(self, name: IdentityField, value: str) -> None:
        """Begin to erase what is in the log by now of a person."""
        await self._store.mark(self._project)
        self._erasures.append(await self._upkeep.begin_erasure(self._project, name, value))
        self.events = [event for event in self.events if event[name] != value]

    async def erase_some(self, until: int) -> None:
        """Delete from the log, up to a position, what is to be erased."""
        for erasure in self._erasures:
            await self._upkeep.erase(self._project, erasure, 0, min(until, erasure.upto))

    async def finish_erasures(self) -> None:
        """Finish them."""
        await self._eraser.finish(self._project)
        self._erasures = []

    async def counts(self) -> tuple[int, int]:
        """How many live segments there are, and how many positions are in none."""
        snapshot = await self._store.snapshot(self._project)
        return len(snapshot.segments), snapshot.log_end - snapshot.exported

    async def ask(self, rpc: str, request: Message, now: datetime, retention_days: int | None = None) -> Any:
        """The response to a question as the analyst gives it at a moment."""
        question = read_question(rpc, request, Asked(now, "UTC"))
        scan, as_of = await state(self._store, self._world.folder, retention_days, self._project, question.needs, now)
        assert as_of.position == self._stored
        encoded = await self._world.engine.answer(question, scan, as_of)
        response = _response_of(rpc)
        response.ParseFromString(encoded)
        return response


@asynccontextmanager
async def open_world(dsn: str, folder: Path) -> AsyncIterator[World]:
    """A world over an empty database, with an engine as the analyst has it."""
    segments, spill = folder / "segments", folder / "spill"
    segments.mkdir()
    async with opened(Database(settings_for(dsn))) as database:
        partitions = Partitions(database)
        async with running_ingest(database, partitions) as ingest:
            engine = Engine(plain_conninfo(dsn, "nimbus analyst"), segments, spill, BUDGET, 1)
            try:
                yield World(dsn, database, ingest, engine, segments)
            finally:
                engine.close()


def kept(events: Iterable[Event], cut: int | None) -> list[Event]:
    """Those that are not older than what is kept; `cut` in microseconds since 1970."""
    return [event for event in events if cut is None or event["t"] >= cut]


def _response_of(rpc: str) -> Message:
    return GetMessageClass(RPCS[rpc].output_type)()


def _sent(event: Event) -> Event:
    sent = {name: event[name] for name in ("name", "user_id", "anonymous_id", "props", "context")}
    return {name: value for name, value in sent.items() if value is not None} | {"ts": moment(event["t"]).isoformat()}


def _stored(
    seq: int, ts: datetime, name: str, user_id: str | None, anonymous_id: str | None, props: str, context: str
) -> Event:
    return {
        "seq": seq,
        "t": micros(ts),
        "name": name,
        "user_id": user_id,
        "anonymous_id": anonymous_id,
        "props": json.loads(props, parse_float=Decimal),
        "context": json.loads(context, parse_float=Decimal),
    }

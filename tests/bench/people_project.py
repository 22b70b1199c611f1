"""A project whose log is that of people_log.py: files that its manifest names, and the engine that answers from them.

What the engine has is published as the exporter does, but for the rows in PostgreSQL: no question reads those.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from conftest import Stack
from lab import Lab, new_target, say
from people_log import segment_of, write_people_log

from nimbus_server.analyses.question import Asked, Question
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.memory import Budget
from nimbus_server.analyst.state import state
from nimbus_server.bench.target import Target
from nimbus_server.postgres.database import Database
from nimbus_server.segments.manifest import segment_path
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings

EVENTS_A_MONTH = 10_000_000
MEMORY_BYTES = 2_000_000_000
# Of the files, as people_log.py makes them.
NOW = datetime(2025, 12, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PeopleProject:
    """Questions about it are answered in this process, by an engine with all cores."""

    target: Target
    position: int
    _store: SegmentStore
    _engine: Engine
    _folder: Path

    def read(self, rpc: str, request: Any) -> Question:
        """The question of an RPC."""
        return read_question(rpc, request, Asked(NOW, "UTC"))

    async def answer(self, question: Question, min_position: int = 0) -> bytes:
        """The answer, from a log that has reached the position."""
        project_id = UUID(self.target.project_id)
        assert not min_position or (await self._store.mark(project_id)).log_end >= min_position
        return await self._engine.answer(
            question, *await state(self._store, self._folder, None, project_id, question.needs, NOW)
        )


def days_of(events: int) -> int:
    """How many days so many events take."""
    return max(30, 30 * events // EVENTS_A_MONTH)


@asynccontextmanager
async def people_project(lab: Lab) -> AsyncIterator[PeopleProject]:
    """A new project on a stack without an analyst; the log has as many events as are to be stored beforehand."""
    stack, events = lab.unanswered, lab.effort.rows
    target = new_target(stack)
    folder = lab.folder / f"people-{target.project_id}"
    store_files = folder / target.project_id
    say(f"writing segments of {events:,} events")
    files = write_people_log(store_files, events, days_of(events))
    database = Database(Settings(database_url=stack.dsn()))
    await database.open()
    store = SegmentStore(database)
    budget = Budget(os.cpu_count() or 1, MEMORY_BYTES, 4 * MEMORY_BYTES)
    engine = Engine(stack.dsn(), folder, folder / "tmp", budget, 1)
    try:
        await _publish(stack, store, UUID(target.project_id), folder, files, events)
        yield PeopleProject(target, events, store, engine, folder)
    finally:
        engine.close()
        await database.close()


async def _publish(
    stack: Stack, store: SegmentStore, project_id: UUID, folder: Path, files: list[Path], events: int
) -> None:
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        connection.execute("UPDATE streams SET last_seq = %s WHERE project_id = %s", (events, project_id))
    segments = [segment_of(file) for file in files]
    for file, segment in zip(files, segments, strict=True):
        file.rename(segment_path(folder, project_id, segment.id))
    await store.publish(project_id, await store.mark(project_id), events, segments)

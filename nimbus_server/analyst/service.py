"""AnalysisService in the analyst: whose turn it is, the state of the log that is asked, and the answer."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from nimbus.v1 import analysis_service_pb2
from nimbus_server.analyses.question import Asked, AsOf, Needs
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.scan import Scan
from nimbus_server.analyst.turns import Turns
from nimbus_server.clock import Clock
from nimbus_server.errors import deadline_exceeded
from nimbus_server.postgres.retention import kept_since
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.call import current_call
from nimbus_server.segments.store import SegmentStore

SERVICE = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
SECONDS_MAX = 120.0
# Pauses between looks at whether the log has reached a position.
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.01, 0.25
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class AnalystService:
    """Implements nimbus.v1.AnalysisService for workers, which have authorized the call: the same for all of its RPCs.

    `folder` has the segments. `retention_days` is None where events are kept for ever.
    """

    def __init__(
        self,
        store: SegmentStore,
        projects: ProjectStore,
        engine: Engine,
        turns: Turns,
        clock: Clock,
        folder: Path,
        retention_days: int | None,
    ) -> None:
        self._store = store
        self._projects = projects
        self._engine = engine
        self._turns = turns
        self._clock = clock
        self._folder = folder
        self._retention_days = retention_days
        for method in SERVICE.methods:
            setattr(self, method.name, partial(self._answer, method.name))

    async def _answer(self, rpc: str, request: Any) -> bytes:
        call, project_id = current_call.get(), UUID(request.project_id)
        seconds = min(SECONDS_MAX, SECONDS_MAX if call.seconds_left is None else call.seconds_left)
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until), self._turns.place(project_id):
                timezone = await self._projects.timezone(project_id)
                question = read_question(rpc, request, Asked(self._clock(), timezone))
                await self._reached(project_id, _min_position(request))
                async with self._turns.turn(project_id):
                    return await self._engine.answer(question, *await self._state(project_id, question.needs))
        except TimeoutError:
            raise deadline_exceeded(seconds) from None

    async def _reached(self, project_id: UUID, position: int) -> None:
        """Wait until the log has reached the position."""
        pause = PAUSE_SECONDS_MIN
        while position > 0 and (await self._store.mark(project_id)).log_end < position:
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    async def _state(self, project_id: UUID, needs: Needs) -> tuple[Scan, AsOf]:
        now = self._clock()
        cut = None if self._retention_days is None else kept_since(now, self._retention_days)
        start = None if needs.start is None else _moment(needs.start)
        end = None if needs.end is None else _moment(needs.end)
        snapshot = await self._store.snapshot(project_id, max(filter(None, (start, cut)), default=None), end)
        scan = Scan(project_id, needs, snapshot, self._folder, None if cut is None else (cut - EPOCH) // MICROSECOND)
        return scan, AsOf(snapshot.log_end, now)


def _min_position(request: Any) -> int:
    """The position that a question, or the one within it, asks for; 0 for none."""
    inner = request.WhichOneof("question") if "question" in request.DESCRIPTOR.oneofs_by_name else None
    asked = getattr(request, inner) if inner else request
    return int(getattr(asked, "min_position", 0))


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)

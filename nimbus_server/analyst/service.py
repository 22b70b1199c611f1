"""AnalysisService in the analyst: whose turn it is, the state of the log that is asked, and the answer."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from nimbus.v1 import analysis_service_pb2
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyst.engine import Engine
from nimbus_server.analyst.state import state
from nimbus_server.analyst.turns import Turns
from nimbus_server.clock import Clock
from nimbus_server.errors import deadline_exceeded
from nimbus_server.projects.store import ProjectStore
from nimbus_server.rpc.call import current_call
from nimbus_server.segments.store import SegmentStore

SERVICE = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
SECONDS_MAX = 120.0
# Pauses between looks at whether the log has reached a position.
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.01, 0.25


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
        self._state_of = partial(state, store, folder, retention_days)
        self._projects = projects
        self._engine = engine
        self._turns = turns
        self._waits = Turns(0)
        self._clock = clock
        for method in SERVICE.methods:
            setattr(self, method.name, partial(self._answer, method.name))

    async def _answer(self, rpc: str, request: Any) -> bytes:
        call, project_id = current_call.get(), UUID(request.project_id)
        seconds = min(SECONDS_MAX, SECONDS_MAX if call.seconds_left is None else call.seconds_left)
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until):
                await self._reached(project_id, _min_position(request))
                return await self._in_turn(rpc, request, project_id)
        except TimeoutError:
            raise deadline_exceeded(seconds) from None

    async def _in_turn(self, rpc: str, request: Any, project_id: UUID) -> bytes:
        async with self._turns.place(project_id):
            timezone = await self._projects.timezone(project_id)
            question = read_question(rpc, request, Asked(self._clock(), timezone))
            async with self._turns.turn(project_id):
                state = await self._state_of(project_id, question.needs, self._clock())
                return await self._engine.answer(question, *state)

    async def _reached(self, project_id: UUID, position: int) -> None:
        """Wait until the log has reached the position: not where questions wait, which this may hold up for long."""
        if position <= 0:
            return
        pause = PAUSE_SECONDS_MIN
        async with self._waits.place(project_id):
            while (await self._store.mark(project_id)).log_end < position:
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)


def _min_position(request: Any) -> int:
    """The position that a question, or the one within it, asks for; 0 for none."""
    inner = request.WhichOneof("question") if "question" in request.DESCRIPTOR.oneofs_by_name else None
    asked = getattr(request, inner) if inner else request
    return int(getattr(asked, "min_position", 0))

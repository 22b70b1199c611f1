"""Whose question runs, whose waits, and whose is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from nimbus_server.errors import too_many_questions

RUNNING_PER_PROJECT = 2
WAITING_MAX, WAITING_PER_PROJECT = 16, 8


@dataclass(slots=True)
class _Project:
    inside: int = 0
    running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RUNNING_PER_PROJECT))


class Turns:
    """At most `running_max` questions run at a time, and some more wait, in order.

    No project has all the places of either kind.
    """

    def __init__(self, running_max: int) -> None:
        self._running = asyncio.Semaphore(running_max)
        self._inside_max = running_max + WAITING_MAX
        self._inside = 0
        self._projects: dict[UUID, _Project] = {}

    @asynccontextmanager
    async def place(self, project_id: UUID) -> AsyncIterator[None]:
        """A place to wait in. Raises NimbusError with OVERLOADED where there is none."""
        project = self._projects.get(project_id) or _Project()
        if self._inside >= self._inside_max or project.inside >= RUNNING_PER_PROJECT + WAITING_PER_PROJECT:
            raise too_many_questions()
        self._projects[project_id] = project
        self._inside += 1
        project.inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            project.inside -= 1
            if not project.inside:
                del self._projects[project_id]

    @asynccontextmanager
    async def turn(self, project_id: UUID) -> AsyncIterator[None]:
        """Leave to run, for who has a place."""
        async with self._projects[project_id].running, self._running:
            yield

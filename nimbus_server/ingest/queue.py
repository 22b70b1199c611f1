"""What waits for its commit: bounded, by project, in order of arrival."""

from asyncio import Future
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from nimbus_server.ingest.commit import Append, Stored

# Of what waits or is being committed. At 150,000 events a second this is a third of a second's work.
EVENTS_MAX = 50_000
BYTES_MAX = 64 * 1024 * 1024
# What one project may take of it, so that the others always find room.
PROJECT_SHARE = 0.5
# What one commit takes: more would make the first of it wait for the last, less would cost more commits.
COMMIT_EVENTS = 20_000
COMMIT_BYTES = 16 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Waiting:
    """An append, its size in bytes, and where its outcome goes."""

    append: Append
    size: int
    outcome: Future[Stored] = field(default_factory=Future)
    removed: bool = False


@dataclass(slots=True)
class _Use:
    appends: int = 0
    events: int = 0
    size: int = 0

    def add(self, waiting: Waiting, sign: int) -> None:
        self.appends += sign
        self.events += sign * len(waiting.append.events)
        self.size += sign * waiting.size

    def fits(self, events: int, size: int, share: float) -> bool:
        return self.events + events <= EVENTS_MAX * share and self.size + size <= BYTES_MAX * share


class Queue:
    """Appends by project. One counts from `put` until `remove`, whether it waits or was taken."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, dict[Waiting, None]] = {}
        self._use = _Use()
        self._use_of: dict[UUID, _Use] = {}

    @property
    def project_ids(self) -> Collection[UUID]:
        """Projects for which something waits, longest first."""
        return self._waiting.keys()

    def has_room(self, project_id: UUID, events: int, size: int) -> bool:
        """Whether so many more events of so many bytes may wait for this project."""
        return self._use.fits(events, size, 1) and self._use_of.get(project_id, _Use()).fits(
            events, size, PROJECT_SHARE
        )

    def put(self, waiting: Waiting) -> None:
        """Add one at the end."""
        project_id = waiting.append.project_id
        self._waiting.setdefault(project_id, {})[waiting] = None
        self._use.add(waiting, 1)
        self._use_of.setdefault(project_id, _Use()).add(waiting, 1)

    def take(self, project_ids: Collection[UUID]) -> list[Waiting]:
        """What waits for these projects, as much as one commit holds and of each about the same."""
        taken: list[Waiting] = []
        share = len(project_ids) or 1
        for project_id in project_ids:
            waiting, use = self._waiting.get(project_id, {}), _Use()
            for one in list(waiting):
                if use.appends and not _fits_commit(use, one, share):
                    break
                use.add(one, 1)
                del waiting[one]
                taken.append(one)
            if not waiting:
                self._waiting.pop(project_id, None)
            else:
                # The others first, next time.
                self._waiting[project_id] = self._waiting.pop(project_id)
        return taken

    def put_back(self, taken: Iterable[Waiting]) -> None:
        """Undo `take` for those of these that were not removed since: they come first again."""
        by_project: dict[UUID, dict[Waiting, None]] = {}
        for one in taken:
            if not one.removed:
                by_project.setdefault(one.append.project_id, {})[one] = None
        for project_id, waiting in by_project.items():
            self._waiting[project_id] = waiting | self._waiting.get(project_id, {})

    def remove(self, waiting: Waiting) -> bool:
        """Forget one, whether it was taken or still waits; False where it was forgotten already."""
        if waiting.removed:
            return False
        waiting.removed = True
        project_id = waiting.append.project_id
        others = self._waiting.get(project_id)
        if others is not None:
            others.pop(waiting, None)
            if not others:
                del self._waiting[project_id]
        self._use.add(waiting, -1)
        use = self._use_of[project_id]
        use.add(waiting, -1)
        if not use.appends:
            del self._use_of[project_id]
        return True


def _fits_commit(use: _Use, one: Waiting, share: int) -> bool:
    return (
        use.events + len(one.append.events) <= COMMIT_EVENTS // share and use.size + one.size <= COMMIT_BYTES // share
    )

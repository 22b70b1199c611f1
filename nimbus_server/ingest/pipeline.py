"""The way of a batch from its caller to the log: it waits in the queue, and a writer commits all that waits at once."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from uuid import UUID

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from nimbus_server import patience
from nimbus_server.errors import NimbusError, overloaded
from nimbus_server.ingest.commit import Append, Stored
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.queue import Queue, Waiting
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.ingest.store import EventLog

log = structlog.get_logger(__name__)

# Commits at a time that wait for the lock of one project, each with a connection.
LANES_MAX = 4
COMMITS_PER_LANE = 20
PROJECTS_PER_COMMIT = 500
# From the start of one commit to that of the next, for each caller whom the first one answered, and at most. A
# few callers gain nothing from waiting for each other: a commit takes longer than their pause.
PAUSE_SECONDS_PER_CALLER = 0.0006
PAUSE_SECONDS_MAX = 0.01
# What an event takes in memory beside its texts, and what one does that is refused.
EVENT_OVERHEAD_BYTES = 300


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch on its way. `until` is in the event loop's time."""

    batch: Batch
    waiting: Waiting
    until: float


class Ingest:
    """Stores batches, many in one commit. Identities make every attempt safe to repeat.

    One task commits for all projects whose log is free. A log that somebody else holds is waited for in a task of its
    own, so that it delays nobody else. Call `run` for as long as anything is to be stored. `on_commit` is told the
    projects whose logs have grown.
    """

    def __init__(self, event_log: EventLog, on_commit: Callable[[Collection[UUID]], None] = lambda _: None) -> None:
        self._log = event_log
        self._on_commit = on_commit
        self._queue = Queue()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._lanes: dict[UUID, asyncio.Task[None]] = {}
        self._held: set[UUID] = set()
        self._last_commit_appends = 0
        self._last_commit_at = 0.0

    async def store(
        self, project_id: UUID, batch: Batch, origin: Origin, deadline_seconds: float | None = None
    ) -> Receipt:
        """Store what is valid in a batch; durable on return.

        Raises NimbusError with PROJECT_NOT_FOUND, API_KEY_UNKNOWN, STORAGE_UNAVAILABLE once the deadline is near, or
        at once OVERLOADED where the queue is full.
        """
        return await self.receipt(await self.submit(project_id, batch, origin, deadline_seconds))

    async def submit(
        self,
        project_id: UUID,
        batch: Batch,
        origin: Origin,
        deadline_seconds: float | None = None,
        *,
        waits_for_room: bool = False,
    ) -> "Submitted":
        """Put a batch into the queue, after those that were submitted before it.

        Also one without a valid event: the commit finds out whether its key is still in force.
        Pass the result to `receipt` or `abandon`. Raises NimbusError with STORAGE_UNAVAILABLE once the deadline is
        near, or at once OVERLOADED where the queue is full and the batch does not wait for room.
        """
        until = patience.until(deadline_seconds)
        size = sum(len(event.texts) for event in batch.events)
        size += EVENT_OVERHEAD_BYTES * (len(batch.events) + len(batch.refusals))
        if not self._log.has_partitions(batch.events):
            await patience.in_time(until, self._make_partitions(batch))
        if not self._queue.has_room(project_id, len(batch.events), size):
            if not waits_for_room:
                raise overloaded()
            await patience.in_time(until, self._wait_for_room(project_id, batch, size))
        waiting = Waiting(Append(project_id, origin.key_id, batch.events, origin.received_at), size)
        self._queue.put(waiting)
        self._work.set()
        return Submitted(batch, waiting, until)

    async def receipt(self, submitted: "Submitted") -> Receipt:
        """What became of the batch, after its commit. Raises what `store` does."""
        try:
            return Receipt(submitted.batch, await patience.in_time(submitted.until, submitted.waiting.outcome))
        finally:
            self.abandon(submitted)

    def abandon(self, submitted: "Submitted") -> None:
        """Take a batch out of the queue, unless it is being committed; what became of it is of no interest."""
        if self._queue.remove(submitted.waiting):
            submitted.waiting.outcome.cancel()
            self._room.set()

    async def _make_partitions(self, batch: Batch) -> None:
        async for attempt in _until_storage_is_back():
            with attempt:
                await self._log.make_partitions(batch.events)

    async def _wait_for_room(self, project_id: UUID, batch: Batch, size: int) -> None:
        while not self._queue.has_room(project_id, len(batch.events), size):
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """Commit what is put into the queue, until cancelled."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while free := self._free_projects():
                    held = await self._commit_when_storage_is_there(free, wait=False)
                    for project_id in held:
                        self._wait_apart(project_id)
        finally:
            for lane in self._lanes.values():
                lane.cancel()

    async def _linger(self) -> None:
        """Where many callers come together, let more of them come: a commit costs much the same for one as for fifty.

        As commit_delay does in PostgreSQL.
        """
        loop = asyncio.get_running_loop()
        pause = min(self._last_commit_appends * PAUSE_SECONDS_PER_CALLER, PAUSE_SECONDS_MAX)
        if (left := self._last_commit_at + pause - loop.time()) > 0:
            await asyncio.sleep(left)
        self._last_commit_at = loop.time()

    def _free_projects(self) -> list[UUID]:
        free = (p for p in self._queue.project_ids if p not in self._lanes and p not in self._held)
        return [project_id for project_id, _ in zip(free, range(PROJECTS_PER_COMMIT), strict=False)]

    def _wait_apart(self, project_id: UUID) -> None:
        if len(self._lanes) < LANES_MAX:
            self._lanes[project_id] = asyncio.create_task(self._lane(project_id))
        else:
            self._held.add(project_id)

    async def _lane(self, project_id: UUID) -> None:
        # Who holds the log now, another worker most likely, will hold it again: the lane stays for a while.
        try:
            for _ in range(COMMITS_PER_LANE):
                await self._commit_when_storage_is_there([project_id], wait=True)
                self._held.clear()
                self._work.set()
                if project_id not in self._queue.project_ids:
                    break
        finally:
            del self._lanes[project_id]
            self._held.clear()
            self._work.set()

    async def _commit_when_storage_is_there(self, project_ids: list[UUID], *, wait: bool) -> set[UUID]:
        await self._linger()
        held: set[UUID] = set()
        async for attempt in _until_storage_is_back():
            with attempt:
                held = await self._commit(project_ids, wait=wait)
        return held

    async def _commit(self, project_ids: list[UUID], *, wait: bool) -> set[UUID]:
        """Commit what waits for these projects, and return those whose logs are held by others unless it `wait`s."""
        taken: list[Waiting] = []
        held = set(project_ids)

        def take(free: Collection[UUID]) -> list[Append]:
            self._queue.put_back(taken)
            taken[:] = self._queue.take(free)
            held.difference_update(free)
            return [one.append for one in taken]

        try:
            outcomes = await self._log.commit(project_ids, take, wait=wait)
        except (NimbusError, asyncio.CancelledError):
            self._queue.put_back(taken)
            raise
        except Exception:
            # A defect, that one append brings about: the others shall not suffer.
            taken = taken or self._queue.take(project_ids)
            log.exception("defect in a commit", appends=len(taken))
            await self._commit_one_by_one(taken)
            return set()
        finally:
            self._last_commit_appends = len(taken)
        for one in taken:
            _resolve(one, outcomes[one.append])
        self._on_commit(
            {a.project_id for a, outcome in outcomes.items() if isinstance(outcome, Stored) and outcome.events}
        )
        return held

    async def _commit_one_by_one(self, taken: list[Waiting]) -> None:
        for one in taken:
            if one.removed:
                continue
            try:
                (outcome,) = await self._log.append([one.append])
                _resolve(one, outcome)
                self._on_commit([one.append.project_id])
            except Exception as error:  # noqa: BLE001 - it goes to the caller whose append it is
                _resolve(one, error)


def _resolve(waiting: Waiting, outcome: Stored | Exception) -> None:
    if waiting.outcome.done():
        return
    if isinstance(outcome, Exception):
        waiting.outcome.set_exception(outcome)
    else:
        waiting.outcome.set_result(outcome)


def _until_storage_is_back() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception_type(NimbusError),
        wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
        reraise=True,
    )

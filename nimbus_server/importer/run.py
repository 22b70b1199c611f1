"""Blocks into the log, one commit each, for as long as the database can be reached within a minute."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.importer.source import Block
from nimbus_server.ingest.commit import Append, Stored
from nimbus_server.ingest.store import EventLog

PATIENCE_SECONDS = 60.0
# What passes when it is tried again later.
PASSING = {Reason.STORAGE_UNAVAILABLE, Reason.OVERLOADED, Reason.DEADLINE_EXCEEDED}


@dataclass(slots=True)
class Progress:
    """What became of the records so far; `refused_lines` are those of the file that were refused with them.

    `last` is the block that was done last.
    """

    stored: int = 0
    there_already: int = 0
    refused: int = 0
    refused_lines: int = 0
    last: Block | None = None


async def import_blocks(
    log: EventLog,
    project_id: UUID,
    blocks: AsyncIterator[Block],
    progress: Progress,
    done: Callable[[Block], None],
    away: Callable[[], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Store the blocks in their order; `progress` is up to date whenever `done` is called, and at any exception.

    `away` is called once each time that the database is lost, before it is tried again. Raises what iterating over
    `blocks` does, and NimbusError where the project is gone or the database was away for `patience_seconds`.
    """
    async for block in blocks:
        events, stored = block.events, 0
        async for attempt in _until_storage_is_back(away, patience_seconds):
            with attempt:
                stored = await _store(log, Append(project_id, None, events, block.received_at))
        progress.stored += stored
        progress.there_already += len(events) - stored
        progress.refused += len(block.rejected)
        progress.refused_lines += sum(rejected.lines for rejected in block.rejected)
        progress.last = block
        done(block)


async def _store(log: EventLog, append: Append) -> int:
    if not append.events:
        return 0
    await log.make_partitions(append.events)
    (outcome,) = await log.append([append])
    if isinstance(outcome, Stored):
        return len(outcome.events)
    raise outcome


def _until_storage_is_back(away: Callable[[], None], patience_seconds: float) -> AsyncRetrying:
    # Identities make every attempt safe to repeat.
    return AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, NimbusError) and error.reason in PASSING),
        wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.1),
        stop=stop_after_delay(patience_seconds),
        before_sleep=lambda state: away() if state.attempt_number == 1 else None,
        reraise=True,
    )

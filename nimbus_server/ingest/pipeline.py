"""A batch on its way into the log, retried while the database is away and the caller waits."""

from dataclasses import dataclass
from uuid import UUID

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.event import Refusal
from nimbus_server.ingest.store import EventLog

# How long a batch waits for a lost database: less than the edge gives a call by default.
RETRY_SECONDS_MAX = 10.0
# Left of a caller's deadline for the answer itself.
ANSWER_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch: accepted + duplicates + refused is the number of events in it."""

    accepted: int
    duplicates: int
    refusals: list[Refusal]


class Ingest:
    """Stores batches. Identities make every attempt safe to repeat."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log

    async def store(self, project_id: UUID, batch: Batch, origin: Origin, deadline_seconds: float | None) -> Receipt:
        """Store what is valid in a batch; durable on return.

        Raises NimbusError with PROJECT_NOT_FOUND, OVERLOADED, or STORAGE_UNAVAILABLE once the deadline is near.
        """
        if not batch.events:
            return Receipt(0, 0, batch.refusals)
        patience = RETRY_SECONDS_MAX if deadline_seconds is None else deadline_seconds - ANSWER_SECONDS
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_storage_is_away),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(min(patience, RETRY_SECONDS_MAX)),
            reraise=True,
        ):
            with attempt:
                accepted = await self._log.append(project_id, batch.events, origin.received_at)
        return Receipt(accepted, len(batch.events) - accepted, batch.refusals)


def _storage_is_away(error: BaseException) -> bool:
    return isinstance(error, NimbusError) and error.reason is Reason.STORAGE_UNAVAILABLE

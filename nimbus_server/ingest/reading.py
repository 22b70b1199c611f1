"""From the bytes of a request to its batch: a few at a time, because parsed they are up to 50 times as large."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from nimbus_server import patience
from nimbus_server.accounts.caller import Machine, caller
from nimbus_server.clock import DAY, Clock, micros
from nimbus_server.errors import NimbusError
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Batch, Origin, check_count
from nimbus_server.ingest.event import EVENTS_MAX, TS_MIN
from nimbus_server.ingest.wire import has_more_events
from nimbus_server.projects.access import ProjectAccess

# Requests of so many bytes are read in one go. Larger ones take turns.
SMALL_BYTES = 32 * 1024
# Larger ones, and compressed ones, are parsed in a thread, so that others get their turn meanwhile.
PARSED_AT_ONCE_BYTES = 1024 * 1024
# Events of a large request that are decoded in one go, in one or two milliseconds.
SLICE_EVENTS = 200
# From here on the events of a protobuf message are counted before it is parsed: that costs half a microsecond each.
COUNTED_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A request with its events still to be decoded; `sent_at` in microseconds since 1970."""

    project: UUID
    events: Sequence[Any]
    sent_at: int | None
    return_receipts: bool
    decode: Callable[[Sequence[Any], Origin, int], Batch]


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What is kept of a request while it waits for its commit; `count` is how many events it had."""

    project: UUID
    batch: Batch
    origin: Origin
    count: int
    return_receipts: bool


class Reader:
    """Reads the requests of one worker. Events older than `retention_days` are refused, where given."""

    def __init__(self, access: ProjectAccess, clock: Clock, retention_days: int | None) -> None:
        self._access = access
        self._clock = clock
        self._retention = None if retention_days is None else retention_days * DAY
        # The rights of people are looked up in the database: machines don't wait for that.
        self._turn_of_machines, self._turn_of_people = asyncio.Lock(), asyncio.Lock()

    async def read(
        self,
        raw: bytes,
        parse: Callable[[], SentBatch],
        *,
        packed: bool = False,
        number: int = 0,
        seconds_left: float | None = None,
    ) -> ReadBatch:
        """The batch in a request, if the caller may write to its project; `number` is that of a batch in a stream.

        `raw` is the request as it came; `packed` says that it may be small for what is in it. What `parse` makes of it
        is gone when this returns. Raises NimbusError with BATCH_EMPTY, BATCH_TOO_LARGE, PROJECT_MISMATCH,
        PROJECT_NOT_FOUND, STORAGE_UNAVAILABLE once the call has few `seconds_left`, or what `parse` does.
        """
        until = patience.until(seconds_left)
        if len(raw) <= SMALL_BYTES and not packed:
            return await self._read(parse(), number, EVENTS_MAX, until)
        if len(raw) > COUNTED_BYTES and has_more_events(raw, EVENTS_MAX):
            check_count(EVENTS_MAX + 1)
        turn = self._turn_of_machines if isinstance(caller(), Machine) else self._turn_of_people
        try:
            async with turn:
                large = packed or len(raw) > PARSED_AT_ONCE_BYTES
                # Without a name here, which a traceback would keep.
                return await self._read(await _in_thread(parse) if large else parse(), number, SLICE_EVENTS, until)
        except NimbusError as error:
            # Its traceback would hold what was parsed until the caller is told.
            raise error.with_traceback(None) from None

    async def _read(self, sent: SentBatch, number: int, slice_events: int, until: float) -> ReadBatch:
        who = caller()
        if isinstance(who, Machine):
            await self._access.require(who, sent.project)  # knows it without asking
        else:
            await patience.in_time(until, self._access.require(who, sent.project))
        received_at = micros(self._clock())
        machine = who if isinstance(who, Machine) else None
        origin = Origin(
            received_at=received_at,
            default_ts=micros(machine.signed_at) if machine else received_at,
            id_prefix=identity.signed(machine.signature, number) if machine else identity.fresh(received_at),
            repeatable=machine is not None,
            key_id=machine.key_id if machine else None,
            skew=None if sent.sent_at is None else received_at - sent.sent_at,
            ts_min=TS_MIN if self._retention is None else max(TS_MIN, received_at - self._retention),
        )
        check_count(len(sent.events))
        return ReadBatch(
            sent.project, await _decode(sent, origin, slice_events), origin, len(sent.events), sent.return_receipts
        )


async def _in_thread(parse: Callable[[], SentBatch]) -> SentBatch:
    """What `parse` returns. A call that is cancelled waits for it all the same: its turn bounds the memory."""
    parsing = asyncio.ensure_future(asyncio.to_thread(parse))
    try:
        return await asyncio.shield(parsing)
    except asyncio.CancelledError:
        await asyncio.wait({parsing})
        raise


async def _decode(sent: SentBatch, origin: Origin, slice_events: int) -> Batch:
    if len(sent.events) <= slice_events:
        return sent.decode(sent.events, origin, 0)
    batch = Batch([], [])
    for first in range(0, len(sent.events), slice_events):
        part = sent.decode(sent.events[first : first + slice_events], origin, first)
        batch.events.extend(part.events)
        batch.refusals.extend(part.refusals)
        # Others come between: above all the writer, which PostgreSQL waits for.
        await asyncio.sleep(0)
    return batch

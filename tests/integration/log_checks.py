"""Sends what the model describes, and checks what holds for every log, whatever was sent to it."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from log_model import GIVEN_TIMES, Request, Row, Told
from storage import Count, all_of, counts_of, log_of

from nimbus_server.clock import micros
from nimbus_server.events.store import Cursor, EventReader, LoggedEvent
from nimbus_server.ingest import identity
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.ingest.pipeline import Ingest
from nimbus_server.ingest.receipt import Receipt
from nimbus_server.postgres.database import Database

WITH_ONE_DATABASE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Sender:
    """Decodes each request as it comes in, a repeated signed one (a replay) each time anew.

    A repeat of an unsigned one is the server's own retry of the batch that it has decoded.
    """

    def __init__(self, project: UUID) -> None:
        self.project = project
        self._decoded: dict[int, Batch] = {}

    def decode(self, request: Request, received_at: datetime) -> tuple[Batch, Origin]:
        at, signature, sent_at = micros(received_at), request.signature, request.sent_at
        origin = Origin(
            received_at=at,
            default_ts=micros(request.default_ts),
            id_prefix=identity.signed(signature) if signature else identity.fresh(at),
            repeatable=signature is not None,
            skew=at - micros(sent_at) if sent_at else None,
        )
        batch = decode_json(request.events, origin)
        return (batch if signature else self._decoded.setdefault(id(request), batch)), origin

    async def send(self, ingest: Ingest, request: Request, received_at: datetime) -> tuple[Batch, Receipt]:
        batch, origin = self.decode(request, received_at)
        return batch, await ingest.store(self.project, batch, origin)


def told(batch: Batch, stored: dict[int, int]) -> Told:
    """What a sender is told of a batch of which these indexes were stored."""
    duplicates = [event.place for event in batch.events if event.place not in stored]
    return Told(stored, duplicates, [refusal.index for refusal in batch.refusals])


def as_row(event: LoggedEvent) -> Row:
    return Row(event.name, event.user_id, event.idempotency_key, event.ts, event.props, event.received_at)


def identities(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    """Rows without what depends on which of several requests came first."""
    return Counter(
        (r.name, r.user_id, r.key, ts) if r.key else (r.name, r.user_id, ts, r.props["n"])
        for r in rows
        for ts in [r.ts if r.ts in GIVEN_TIMES else "another"]
    )


async def check_log(database: Database, project: UUID) -> list[LoggedEvent]:
    """Positions have no gap, counts are those of a recount, and every way of reading gives every event once."""
    log = await log_of(database, project)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    minutes = Counter((event.ts.replace(second=0, microsecond=0), event.name) for event in log)
    assert await counts_of(database, project) == {Count(minute, name, n) for (minute, name), n in minutes.items()}
    newest_first = sorted(log, key=lambda event: (event.ts, event.id), reverse=True)
    reader, which = EventReader(database), all_of(project)
    by_offset = [await reader.page(which, 3, offset) for offset in range(0, len(log) + 1, 3)]
    assert [event for page in by_offset for event in page] == newest_first
    by_cursor, after = [], None
    while page := await reader.page(which, 3, after=after):
        by_cursor += page
        after = Cursor(page[-1].ts, page[-1].id)
    assert by_cursor == newest_first
    assert await reader.count(which) == len(log)
    return log

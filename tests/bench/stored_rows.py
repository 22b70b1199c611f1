"""A project with a long log, written by the database itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
from conftest import Stack

from nimbus_server.bench.calls import grpc_ingest
from nimbus_server.bench.events import NAMES, Requests, SentEvent, as_proto
from nimbus_server.bench.target import Target

ROWS_A_STEP = 500_000
SPAN = timedelta(hours=24)

# Like what bench/events.py sends, at even distances over SPAN.
INSERT_EVENTS = """
INSERT INTO events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, props)
SELECT %(project_id)s, %(start)s + n * %(step)s, gen_random_uuid(), n, now(), (%(names)s::text[])[1 + n %% %(kinds)s],
       'user-' || n * 7919 %% 10007, '0f1e2d3c-2026-01-01T00:00:00-' || n,
       format('{"plan": "pro", "page": "/items/%%s", "amount": %%s}', n * 31 %% 1009, n %% 500)::jsonb
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
COUNT_EVENTS = """
INSERT INTO event_counts (project_id, minute, name, count)
SELECT project_id, date_trunc('minute', ts), name, count(*) FROM events
WHERE project_id = %(project_id)s GROUP BY 1, 2, 3
ON CONFLICT (project_id, minute, name) DO UPDATE SET count = excluded.count
"""
ADVANCE_STREAM = "UPDATE streams SET last_seq = %(last)s WHERE project_id = %(project_id)s"


async def fill(stack: Stack, target: Target, rows: int, say: Callable[[str], None]) -> None:
    """Give the project `rows` events of the day that ends now, with positions and counts that fit."""
    start = datetime.now(UTC).replace(microsecond=0) - SPAN
    await _make_partition(target, start)
    values = {"project_id": target.project_id, "start": start, "step": SPAN / (rows + 1)}
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        for first in range(2, rows + 1, ROWS_A_STEP):
            last = min(rows, first + ROWS_A_STEP - 1)
            step = {"first": first, "last": last, "names": NAMES, "kinds": len(NAMES)}
            connection.execute(INSERT_EVENTS, values | step)
            say(f"stored {last:,} of {rows:,} events")
        connection.execute(COUNT_EVENTS, values)
        connection.execute(ADVANCE_STREAM, values | {"last": rows})
        # Now, and not in the middle of what is measured.
        connection.execute("VACUUM (ANALYZE) events, event_counts")


async def _make_partition(target: Target, at: datetime) -> None:
    """Send the first event: the server makes the partition of a month when it is wanted."""

    def encode(project_id: str, _: list[SentEvent]) -> bytes:
        return as_proto(project_id, [SentEvent("0f1e2d3c", at, 0, 1)])

    async with grpc_ingest(target, Requests(encode, target.project_id, 1), 1) as (send,):
        assert await send() == 1

"""How fast a log becomes segments and in how much memory, beside the same rows by binary COPY, thrown away.

Run with PYTHONPATH=tests. It starts a stack of its own; the events have ten properties.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from conftest import Stack, new_account

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import load

INSERT = """
INSERT INTO events (project_id, ts, id, seq, received_at, name, user_id, idempotency_key, props, context)
SELECT %(project)s, %(start)s + n * interval '1 ms', gen_random_uuid(), n, now(), 'event_' || n %% 20,
    'user-' || n * 7919 %% 10007, NULL,
    jsonb_build_object('plan', 'pro', 'page', '/items/' || n * 31 %% 1009, 'amount', n %% 500 + 0.25,
        'quantity', n %% 7, 'country', (ARRAY['DE', 'FR', 'US'])[1 + n %% 3], 'logged_in', n %% 2 = 0,
        'duration_ms', n * 13 %% 10000, 'referrer', 'https://example.com/' || n %% 100, 'title', 'Item ' || n %% 1000,
        'tags', ARRAY['a', 'b']),
    '{"page": {"path": "/", "url": "https://example.com/"}, "library": {"name": "nimbus", "version": "1"}}'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
COPY = """
COPY (SELECT seq, ts, name, user_id, anonymous_id, id, received_at, idempotency_key, props::text, context::text
    FROM events WHERE project_id = '{}' AND seq > {} AND seq <= {}) TO STDOUT (FORMAT binary)
"""
STEP = 250_000


async def measure(dsn: str, project: UUID, rows: int, folder: Path) -> None:
    """Print both rates and the memory."""
    settings = load(environment="test", database_url=dsn)
    database = Database(settings)
    await database.open()
    await Partitions(database).ensure_ahead(now())
    _fill(dsn, project, rows)
    exporter = Exporter(SegmentStore(database), plain_conninfo(dsn, "bench"), folder, now)
    exporting = copying = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF)
    # By turns, so that both meet the same machine.
    for after in range(0, rows, STEP):
        started = time.perf_counter()
        _copy(dsn, project, after)
        copied = time.perf_counter()
        await exporter.export(project, STEP)
        copying, exporting = copying + copied - started, exporting + time.perf_counter() - copied
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    (status,) = await SegmentStore(database).status()
    await database.close()
    print(f"COPY, thrown away: {rows / copying:,.0f} rows/s")
    print(f"export: {rows / exporting:,.0f} rows/s, {copying / exporting:.2f} of COPY")
    print(f"{status.bytes / rows:.0f} bytes a row in segments")
    print(f"processor seconds of both here: {processor:.1f}; memory at most {used.ru_maxrss / 1024:,.0f} MB")


def _fill(dsn: str, project: UUID, rows: int) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for first in range(1, rows + 1, STEP):
            values = {"project": project, "start": start, "first": first, "last": min(rows, first + STEP - 1)}
            connection.execute(INSERT, values)
        connection.execute("UPDATE streams SET last_seq = %s WHERE project_id = %s", (rows, project))
        connection.execute("VACUUM (ANALYZE) events")


def _copy(dsn: str, project: UUID, after: int) -> None:
    query = COPY.format(project, after, after + STEP).encode()
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor, cursor.copy(query) as copy:
        for _ in copy:
            pass


def main() -> None:
    """Start a stack, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="nimbus-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        stack = Stack(folder / "data", {"NIMBUS_WORKERS": "1"}).start()
        try:
            project = UUID(new_account(stack).project_id)
            asyncio.run(measure(stack.dsn(), project, rows, folder / "segments"))
        finally:
            stack.stop()


if __name__ == "__main__":
    main()

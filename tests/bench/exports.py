"""How fast a log becomes segments.

    python tests/bench/exports.py DSN PROJECT FOLDER

exports the log of a project in a process of its own, and prints how many events, seconds and megabytes that took.
"""

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import psycopg
from goals import RATE, Figure, compare
from lab import Lab, new_target, say, settle
from stored_rows import fill

from nimbus_server.bench.load import Result
from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.store import SegmentStore
from nimbus_server.settings import Settings

EVENTS_MAX = 2_000_000
KILOBYTE, MEGABYTE = 1024, 1_000_000
READ = """
COPY (SELECT seq, ts, name, user_id, anonymous_id, id, received_at, idempotency_key, props::text, context::text
FROM events WHERE project_id = '{}' AND seq > 0) TO STDOUT (FORMAT binary)
"""


async def export_rate(lab: Lab) -> Figure:
    """The export of a log, the start of its process with it, beside reading the same rows and dropping them."""
    stack, events = lab.unanswered, min(lab.effort.rows, EVENTS_MAX)
    target = new_target(stack)
    await fill(stack, target, events, say)
    settle(stack, emptied=False)
    megabytes: list[float] = []

    async def read() -> Result:
        started = time.perf_counter()
        async with (
            await psycopg.AsyncConnection.connect(stack.dsn()) as connection,
            connection.cursor() as cursor,
            cursor.copy(READ.format(target.project_id)) as rows,
        ):
            async for _ in rows:
                pass
        return Result(time.perf_counter() - started, events)

    async def export() -> Result:
        with psycopg.connect(stack.dsn(), autocommit=True) as connection:
            for table in ("segments", "segment_marks"):
                connection.execute(f"DELETE FROM {table} WHERE project_id = '{target.project_id}'")
        with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, stack.dsn(), target.project_id, folder), stdout=asyncio.subprocess.PIPE
            )
            told, _ = await process.communicate()
        count, seconds, size = told.split()
        if int(count) != events:
            raise RuntimeError(f"{count.decode()} of {events} events were exported")
        megabytes.append(float(size))
        return Result(float(seconds), events)

    name = f"export of {events:,} events of one project, beside nothing"
    references, results = await lab.alternate(name, read, export)
    figure = compare(name, RATE, "rows read and dropped", references, results)
    figure.result += f", {max(megabytes):.0f} MB"
    figure.expect("≥ 200,000/s", RATE.median(results) >= 200_000)
    figure.expect("< 600 MB", max(megabytes) < 600)
    return figure


async def _export(dsn: str, project_id: UUID, folder: Path) -> int:
    database = Database(Settings(database_url=dsn))
    await database.open()
    exporter, total = Exporter(SegmentStore(database), dsn, folder, now), 0
    while count := await exporter.export(project_id):
        total += count
    await database.close()
    return total


if __name__ == "__main__":
    started = time.perf_counter()
    exported = asyncio.run(_export(sys.argv[1], UUID(sys.argv[2]), Path(sys.argv[3])))
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE / MEGABYTE
    print(exported, time.perf_counter() - started, size)

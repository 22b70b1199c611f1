"""What tests of segments share: events in the log, and what the files say, read back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import duckdb

from nimbus_server.clock import now
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.session import plain_conninfo
from nimbus_server.segments.export import Exporter
from nimbus_server.segments.manifest import Segment, segment_path
from nimbus_server.segments.store import SegmentStore

FIELDS = "seq, ts, name, user_id, anonymous_id, id, received_at, idempotency_key, props, context"
LOG = """
SELECT seq, ts, name, user_id, anonymous_id, id, received_at, idempotency_key, props::text, context::text
FROM events WHERE project_id = %s ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be put into the log."""

    props: Any = None
    context: Any = None
    name: str = "n"
    user_id: str | None = "u"
    anonymous_id: str | None = None
    ts: datetime | None = None


async def put(database: Database, project: UUID, events: Iterable[Event]) -> int:
    """Append events as ingest does: their positions in the order of commits. Return the log's end."""
    async with database.transaction() as connection:
        row = await (
            await connection.execute("SELECT last_seq FROM streams WHERE project_id = %s FOR UPDATE", (project,))
        ).fetchone()
        assert row is not None
        seq = row[0]
        copy_in = (
            "COPY events (project_id, ts, id, seq, received_at, name, user_id, anonymous_id, props, context) FROM STDIN"
        )
        async with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            for event in events:
                seq += 1
                ts = event.ts or now()
                texts = (
                    fields if isinstance(fields, str) else json.dumps(fields or {})
                    for fields in (event.props, event.context)
                )
                await copy.write_row(
                    (project, ts, uuid4(), seq, now(), event.name, event.user_id, event.anonymous_id, *texts)
                )
        await connection.execute("UPDATE streams SET last_seq = %s WHERE project_id = %s", (seq, project))
        return int(seq)


async def log_rows(database: Database, project: UUID) -> list[tuple[Any, ...]]:
    """Every event of the log, by position."""
    async with database.transaction() as connection:
        return await (await connection.execute(LOG, (project,))).fetchall()


def exporter_of(dsn: str, database: Database, folder: Path) -> Exporter:
    """An exporter as the analyst has it."""
    return Exporter(SegmentStore(database), plain_conninfo(dsn, "nimbus tests"), folder, now)


def paths_of(folder: Path, project: UUID, segments: Iterable[Segment]) -> list[str]:
    """The files of segments."""
    return [str(segment_path(folder, project, segment.id)) for segment in segments]


def file_rows(
    folder: Path, project: UUID, segments: Iterable[Segment], fields: str = FIELDS, computed: Iterable[str] = ()
) -> list[tuple[Any, ...]]:
    """What the files hold, by position, in the form of `log_rows`; `fields` may use what is `computed`."""
    paths = paths_of(folder, project, segments)
    if not paths:
        return []
    source = f"SELECT {', '.join(('*', *computed))} FROM read_parquet(?, union_by_name = true)"
    with duckdb.connect() as connection:
        query = f"SELECT {fields} FROM ({source}) ORDER BY seq"
        rows = connection.execute(query, [paths]).fetchall()
    return [tuple(value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in row) for row in rows]


def files_below(folder: Path) -> list[str]:
    """The files in a folder, and in those in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

"""How fast PostgreSQL itself takes such rows: binary COPY into an empty table of the same schema."""

import time
from uuid import uuid4

import orjson
import psycopg
from conftest import Stack

from nimbus_server.bench.events import Requests, as_json
from nimbus_server.bench.load import Result
from nimbus_server.clock import micros, now
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import COPY_EVENTS, HEADER, TRAILER, rows
from nimbus_server.ingest.decode import Origin
from nimbus_server.ingest.decode_json import decode_json
from nimbus_server.postgres.migrate import migrate

DATABASE = "copy_reference"
ROWS_A_COPY = 8000
REQUEST_EVENTS = 1000
# Enough to fill about half of the seconds given.
COPIES_A_SECOND = 10
PARTITION = (
    "CREATE TABLE events_since_2020 PARTITION OF events FOR VALUES FROM ('2020-01-01 00:00:00+00') TO (MAXVALUE)"
)


class CopyReference:
    """Copies of ROWS_A_COPY rows, made beforehand, each committed by itself."""

    def __init__(self, dsn: str, copies: int) -> None:
        self._dsn = dsn
        self._copies = _copies(copies)

    @classmethod
    async def create(cls, stack: Stack, seconds: float) -> "CopyReference":
        """Make a database for it on the stack's server."""
        with psycopg.connect(stack.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        await migrate(stack.dsn(DATABASE))
        with psycopg.connect(stack.dsn(DATABASE), autocommit=True) as connection:
            connection.execute(PARTITION)
        return cls(stack.dsn(DATABASE), max(1, int(seconds * COPIES_A_SECOND)))

    async def run(self) -> Result:
        """Copy everything into the emptied table."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE events")
            connection.execute("CHECKPOINT")
            started = time.perf_counter()
            for copy in self._copies:
                with connection.cursor().copy(COPY_EVENTS) as sink:
                    sink.write(copy)
            return Result(time.perf_counter() - started, len(self._copies) * ROWS_A_COPY)


def _copies(count: int) -> list[bytes]:
    received_at, project_id = micros(now()), uuid4()
    origin = Origin(received_at, received_at, identity.fresh(received_at), repeatable=False)
    requests, seq, copies = Requests(as_json, str(project_id), REQUEST_EVENTS), 1, []
    for _ in range(count):
        parts = [HEADER]
        for _ in range(ROWS_A_COPY // REQUEST_EVENTS):
            events = decode_json(orjson.loads(requests.next())["events"], origin).events
            parts += rows(project_id.bytes, events, seq, received_at)
            seq += len(events)
        copies.append(b"".join(parts) + TRAILER)
    return copies

"""Compares the ledger with what is stored: each check counts what is wrong, so 0 is right."""

from pathlib import Path

import psycopg
from crash_ledger import Ledger

# Every event of the database comes from the ledger's writers.
STORED = """
CREATE TEMP TABLE stored AS
SELECT (props->>'n')::bigint AS event, project_id, seq, date_trunc('minute', ts) AS minute, name FROM events
"""
SENT = "CREATE TEMP TABLE sent (event bigint, project_id uuid, tick bigint)"
ACKED = "CREATE TEMP TABLE acked (event bigint, tick bigint)"

CHECKS = {
    "acknowledged and not stored": (
        "SELECT count(*) FROM acked a WHERE NOT EXISTS (SELECT FROM stored s WHERE s.event = a.event)"
    ),
    "stored twice": "SELECT count(*) - count(DISTINCT event) FROM stored",
    "stored where not sent": """
        SELECT count(*) FROM stored s LEFT JOIN sent USING (event) WHERE sent.project_id IS DISTINCT FROM s.project_id
    """,
    "positions given twice": "SELECT count(*) - count(DISTINCT (project_id, seq)) FROM stored",
    "positions left out": """
        SELECT coalesce(sum(abs(left_out)), 0)
        FROM (SELECT max(seq) - count(DISTINCT seq) AS left_out FROM stored GROUP BY project_id)
    """,
    "last positions wrong": """
        SELECT count(*) FROM streams FULL JOIN (SELECT project_id, max(seq) AS seq FROM stored GROUP BY project_id) s
        USING (project_id) WHERE last_seq IS DISTINCT FROM coalesce(seq, 0)
    """,
    # What was acknowledged before another was sent for the first time has a lower position.
    "positions that shrink": """
        SELECT count(*) FROM (
            SELECT sent.tick, min(acked.tick) OVER (
                PARTITION BY s.project_id ORDER BY s.seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS later_acked
            FROM stored s JOIN sent USING (event) LEFT JOIN acked USING (event)
        ) WHERE later_acked < tick
    """,
    "minutes counted wrong": """
        SELECT count(*) FROM event_counts c FULL JOIN (
            SELECT project_id, minute, name, count(*) AS count FROM stored GROUP BY project_id, minute, name
        ) s USING (project_id, minute, name) WHERE c.count IS DISTINCT FROM s.count
    """,
    "keys remembered without their event": """
        SELECT count(*) FROM event_keys k
        WHERE NOT EXISTS (SELECT FROM events e WHERE (e.project_id, e.ts, e.id) = (k.project_id, k.ts, k.id))
    """,
}
# An answer that is lost may have counted some more, but no answer counts what is not there.
TOLD = "told to be accepted, beyond what is stored"
COUNT_TOLD = """
    SELECT coalesce(sum(greatest(told - stored, 0)), 0)::bigint
    FROM unnest(%s::uuid[], %s::bigint[]) AS t (project_id, told)
    CROSS JOIN LATERAL (SELECT count(*) AS stored FROM stored s WHERE s.project_id = t.project_id)
"""


def stored_events(dsn: str) -> int:
    """How many events there are."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT count(*) FROM events").fetchone()[0]


def violations(dsn: str, ledger: Ledger) -> dict[str, int]:
    """What each check found."""
    with psycopg.connect(dsn) as connection:
        for statement in (SENT, ACKED, STORED):
            connection.execute(statement)
        _load(connection, "COPY sent FROM STDIN", ledger.sent_file)
        _load(connection, "COPY acked FROM STDIN", ledger.acked_file)
        connection.execute("ANALYZE sent; ANALYZE acked; ANALYZE stored")
        found = {what: int(connection.execute(count).fetchone()[0]) for what, count in CHECKS.items()}
        told = (list(ledger.accepted), list(ledger.accepted.values()))
        found[TOLD] = connection.execute(COUNT_TOLD, told).fetchone()[0]
    return found


def _load(connection: psycopg.Connection, copy: str, path: Path) -> None:
    with connection.cursor().copy(copy) as sink, path.open("rb") as file:
        while part := file.read(1 << 20):
            sink.write(part)

"""A log of people as the segments of questions have it: Parquet files, the same on every machine.

    python tests/bench/people_log.py /dev/shm/people_log --events 10000000

200,000 people in 30 days of November 2025 (UTC), 178,000 of whom come at all in 10 million events, in sessions of 8
events. 20 names, ten properties: country, plan, device, browser, path, campaign (texts), amount, items, duration_ms
(numbers), logged_in (a boolean). One event in a hundred arrives up to a day late. A file has a million events in order
of (uid, ts, seq), as those of the exporter. The JSON of the events is left out: what is not promoted is not measured.
"""

import argparse
from datetime import UTC
from pathlib import Path
from uuid import uuid4

import duckdb

from nimbus_server.segments.manifest import Segment

PEOPLE = 200_000
START_SECONDS = 1_761_955_200  # 2025-11-01
DAYS = 30
FILE_EVENTS = 1_000_000
NAMES = [
    *("page_view", "search", "view_item", "add_to_cart", "begin_checkout", "purchase", "login", "signup", "logout"),
    *("share", "comment", "like", "upload", "download", "invite", "subscribe", "cancel", "refund", "contact", "error"),
]

# The kinds of the values of its properties.
KINDS = dict.fromkeys(["country", "plan", "device", "browser", "path", "campaign"], "s")
KINDS |= dict.fromkeys(["amount", "items", "duration_ms"], "n") | {"logged_in": "b"}

# Random bits come from MD5: DuckDB's own hash() and random() may change from version to version. `bits(n, from, width)`
# cuts a number out of a hash.
_MACROS = """
CREATE MACRO bits(n, start, width) AS ((n >> start) & ((1::UBIGINT << width) - 1))::BIGINT;
CREATE MACRO person_hash(id) AS (md5_number_lower(id) >> 1)::BIGINT;
"""

_EVENTS = """
CREATE TABLE log AS
WITH event AS (
    SELECT i, i // 8 AS visit, i % 8 AS place, md5_number_lower('e' || i) AS r, md5_number_lower('v' || i // 8) AS v
    FROM range({events}) AS numbers(i)
), placed AS (
    SELECT i, place, r,
        floor({people} * pow(bits(v, 0, 30) / 1073741824.0, 1.3))::BIGINT AS number,
        bits(v, 30, 32) AS day_part
    FROM event
), timed AS (
    SELECT *, ({start} + (day_part * {seconds}) // 4294967296) * 1000000 + place * 45000000 + bits(r, 0, 25) AS t,
        CASE WHEN bits(r, 25, 7) = 0 THEN bits(r, 32, 17) * 659000 ELSE 0 END AS late
    FROM placed
)
SELECT row_number() OVER (ORDER BY t + late, i) AS seq, t, number, r, md5_number_lower('p' || number) AS p FROM timed;
"""

_FILE = """
COPY (
    SELECT seq, make_timestamp(t) AS ts, {names}[1 + floor(20 * pow(bits(r, 0, 20) / 1048576.0, 2))::INT] AS name,
        CASE WHEN number % 10 < 7 THEN 'user-' || number END AS user_id,
        CASE WHEN number % 10 >= 7 THEN 'device-' || number END AS anonymous_id,
        person_hash(CASE WHEN number % 10 < 7 THEN 'user-' ELSE 'device-' END || number) AS uid,
        'c' || floor(40 * pow(bits(p, 0, 16) / 65536.0, 2))::INT AS "props.country:s",
        ['free', 'free', 'team', 'business'][1 + bits(p, 16, 2)] AS "props.plan:s",
        ['phone', 'tablet', 'desktop', 'desktop'][1 + bits(p, 18, 2)] AS "props.device:s",
        ['chrome', 'safari', 'firefox', 'edge'][1 + bits(p, 20, 2)] AS "props.browser:s",
        '/page/' || bits(r, 20, 8) AS "props.path:s",
        CASE WHEN bits(r, 28, 2) = 0 THEN 'campaign-' || bits(r, 30, 6) END AS "props.campaign:s",
        CASE WHEN bits(r, 36, 3) = 0 THEN bits(r, 39, 14) / 100.0 END AS "props.amount:n",
        (1 + bits(r, 53, 3))::DOUBLE AS "props.items:n",
        bits(r, 40, 20)::DOUBLE AS "props.duration_ms:n",
        bits(r, 56, 1) = 1 AS "props.logged_in:b"
    FROM log WHERE seq > {after} AND seq <= {after} + {rows} ORDER BY uid, ts, seq
) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880);
"""


def write_people_log(folder: Path, events: int, days: int = DAYS) -> list[Path]:
    """Write the files, of a million positions each, into the folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(_MACROS)
        connection.execute(
            _EVENTS.format(events=events, people=PEOPLE, start=START_SECONDS, seconds=days * 86_400 - 400)
        )
        paths = []
        for number, after in enumerate(range(0, events, FILE_EVENTS)):
            paths.append(folder / f"{number:04}.parquet")
            connection.execute(_FILE.format(names=NAMES, after=after, rows=FILE_EVENTS, path=paths[-1]))
    return paths


def segment_of(path: Path) -> Segment:
    """What a manifest says of a file, which is to be named after the segment."""
    with duckdb.connect() as connection:
        facts = connection.execute(
            f"SELECT min(seq), max(seq), min(ts), max(ts), count(*) FROM read_parquet('{path}')"
        ).fetchone()
    assert facts
    first, last, ts_min, ts_max, rows = facts
    columns = {f"props.{name}": kind for name, kind in KINDS.items()}
    times = (ts_min.replace(tzinfo=UTC), ts_max.replace(tzinfo=UTC))
    return Segment(uuid4(), first, last, *times, rows, path.stat().st_size, columns)


def source_sql(folder: Path, start: int, end: int) -> str:
    """The relation `src` of a question over the files, from microseconds `start` to `end` of UTC."""
    return f"""
CREATE OR REPLACE TEMP VIEW src AS
SELECT seq, epoch_us(ts) AS t, name, uid, coalesce(user_id, anonymous_id) AS person, user_id, anonymous_id,
    COLUMNS('props.*:.'),
    {", ".join(f'NULL::{kind} AS "props.{name}:{letter}"' for name, letter, kind in _absent())}
FROM read_parquet('{folder}/*.parquet')
WHERE ts >= make_timestamp({start}) AND ts < make_timestamp({end})"""


def _absent() -> list[tuple[str, str, str]]:
    kinds = {"s": "VARCHAR", "n": "DOUBLE", "b": "BOOLEAN", "j": "VARCHAR"}
    return [(name, letter, kind) for name, has in KINDS.items() for letter, kind in kinds.items() if letter != has]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=10_000_000)
    arguments = parser.parse_args()
    write_people_log(arguments.folder, arguments.events)

"""Counts over time are what counting the events would give."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle.buckets import ZONES, bucket_of
from storage import NOW, new_event, new_project, opened, settings_for
from storage import append as append_to

from nimbus_server.ingest.store import EventLog
from nimbus_server.metrics.bucket import CALENDAR, FIXED, Bucket, CalendarBucket
from nimbus_server.metrics.store import NAMES_MAX, Counts, MetricsStore, Point, SeriesQuery
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

Event = tuple[datetime, str]

# Minutes apart, hours apart and weeks apart: neighbours in every width of bucket, and gaps between them.
MOMENTS = st.builds(
    lambda weeks, hours, seconds: NOW - timedelta(weeks=weeks, hours=hours, seconds=seconds),
    st.integers(0, 6),
    st.integers(0, 30),
    st.floats(0, 1200),
)
EVENTS = st.lists(st.tuples(MOMENTS, st.sampled_from("abc")), max_size=25)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def append(database: Database, project: UUID, events: list[Event]) -> None:
    log = EventLog(database, Partitions(database))
    assert await append_to(log, project, [new_event(*event) for event in events]) == len(events)


def start_of(bucket: Bucket, at: datetime) -> datetime:
    if isinstance(bucket, CalendarBucket):
        return bucket_of(bucket.name, bucket.zone.key, at)
    seconds = int(bucket.width.total_seconds())
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)


def recount(events: list[Event], query: SeriesQuery) -> Counts:
    counted = [
        (start_of(query.bucket, ts), name)
        for ts, name in events
        if (not query.names or name in query.names)
        and (query.start is None or ts >= query.start)
        and (query.end is None or ts < query.end)
    ]
    shown = sorted({ts for ts, _ in counted})[-query.limit :]
    counted = [(ts, name) for ts, name in counted if ts in shown]
    totals = Counter(name for _, name in counted)
    names = sorted(totals, key=lambda name: (-totals[name], name))[:NAMES_MAX] if query.by_name else []
    return Counts(
        points(ts for ts, _ in counted), {name: points(ts for ts, n in counted if n == name) for name in names}
    )


def points(starts: Iterable[datetime]) -> list[Point]:
    return [Point(ts, count) for ts, count in sorted(Counter(starts).items())]


BUCKETS = st.sampled_from(list(FIXED.values())) | st.builds(
    CalendarBucket, st.sampled_from(CALENDAR), st.sampled_from(ZONES).map(ZoneInfo)
)
# NOW is a day before clocks are set back in Havana, where they show midnight twice.
SOME_OF_EACH = [
    *FIXED.values(),
    *(CalendarBucket(name, ZoneInfo(zone)) for name in CALENDAR for zone in ("UTC", "America/Havana")),
]


@st.composite
def queries(draw: st.DrawFn) -> SeriesQuery:
    bucket = draw(BUCKETS)
    return SeriesQuery(
        project_id=UUID(int=0),
        bucket=bucket,
        limit=draw(st.integers(1, 6) | st.just(10_000)),
        start=draw(st.none() | MOMENTS.map(bucket.floor)),
        end=draw(st.none() | MOMENTS.map(bucket.ceil)),
        names=draw(st.lists(st.sampled_from("abcx"), max_size=3)),
        by_name=draw(st.booleans()),
    )


@given(EVENTS, st.lists(queries(), min_size=3, max_size=8))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_newest_buckets_are_those_of_a_recount(
    database: Database, events: list[Event], asked: list[SeriesQuery]
) -> None:
    project, store = await new_project(database), MetricsStore(database)
    half = len(events) // 2
    await append(database, project, events[:half])
    await append(database, project, events[half:])
    for query in asked:
        assert await store.newest(replace(query, project_id=project)) == recount(events, query)


@pytest.mark.parametrize("bucket", SOME_OF_EACH, ids=str)
async def test_the_last_microsecond_of_a_bucket_is_not_in_the_next(database: Database, bucket: Bucket) -> None:
    project, start = await new_project(database), bucket.floor(NOW)
    after = bucket.ceil(start + timedelta(microseconds=1))
    edges = [start - timedelta(microseconds=1), start, after - timedelta(microseconds=1), after]
    await append(database, project, [(ts, "a") for ts in edges])
    query = SeriesQuery(project, bucket, 100, None, None, [])
    before = bucket.floor(edges[0])
    counts = await MetricsStore(database).newest(query)
    assert [(p.ts, p.count) for p in counts.points] == [(before, 1), (start, 2), (after, 1)]
    within = await MetricsStore(database).newest(replace(query, start=start, end=after))
    assert within == Counts([Point(start, 2)], {})


async def test_another_projects_events_are_not_counted(database: Database) -> None:
    mine, others = await new_project(database), await new_project(database)
    await append(database, mine, [(NOW, "a")])
    await append(database, others, [(NOW, "a")] * 5 + [(NOW - timedelta(days=1), "b")])
    query = SeriesQuery(mine, FIXED["1h"], 100, None, None, [])
    assert await MetricsStore(database).newest(query) == Counts([Point(NOW, 1)], {})


async def test_a_query_over_all_of_the_calendar_is_answered(database: Database) -> None:
    project = await new_project(database)
    await append(database, project, [(NOW, "a")])
    for bucket in SOME_OF_EACH:
        start, end = (bucket.floor(datetime.min.replace(tzinfo=UTC)), bucket.ceil(datetime.max.replace(tzinfo=UTC)))
        query = SeriesQuery(project, bucket, 10_000, start, end, [])
        assert await MetricsStore(database).newest(query) == Counts([Point(bucket.floor(NOW), 1)], {})


async def test_of_many_names_the_most_frequent_are_told_apart_and_all_are_counted(database: Database) -> None:
    project = await new_project(database)
    events = [(NOW - timedelta(hours=n % 3), f"n{n:03}") for n in range(NAMES_MAX + 20)] + [(NOW, "n119")] * 2
    await append(database, project, events)
    for bucket in (FIXED["1h"], CalendarBucket("1d", ZoneInfo("UTC"))):
        query = SeriesQuery(project, bucket, 10, None, None, [], by_name=True)
        counts = await MetricsStore(database).newest(query)
        assert counts == recount(events, query)
        assert list(counts.names) == ["n119", *(f"n{n:03}" for n in range(NAMES_MAX - 1))]
        assert sum(point.count for point in counts.points) == len(events)

"""Counts over time are what counting the events would give."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage import NOW, new_event, new_project, opened, settings_for
from storage import append as append_to

from nimbus_server.ingest.store import EventLog
from nimbus_server.metrics.bucket import BUCKETS, Bucket
from nimbus_server.metrics.store import MetricsStore, Point, SeriesQuery
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


def recount(events: list[Event], query: SeriesQuery) -> list[Point]:
    buckets = Counter(
        query.bucket.floor(ts)
        for ts, name in events
        if (not query.names or name in query.names)
        and (query.start is None or ts >= query.start)
        and (query.end is None or ts < query.end)
    )
    return [Point(ts, count) for ts, count in sorted(buckets.items())][-query.limit :]


@st.composite
def queries(draw: st.DrawFn) -> SeriesQuery:
    bucket = draw(st.sampled_from(list(BUCKETS.values())))
    return SeriesQuery(
        project_id=UUID(int=0),
        bucket=bucket,
        limit=draw(st.integers(1, 6) | st.just(10_000)),
        start=draw(st.none() | MOMENTS.map(bucket.floor)),
        end=draw(st.none() | MOMENTS.map(bucket.ceil)),
        names=draw(st.lists(st.sampled_from("abcx"), max_size=3)),
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


@pytest.mark.parametrize("bucket", BUCKETS.values(), ids=lambda b: b.name)
async def test_the_last_microsecond_of_a_bucket_is_not_in_the_next(database: Database, bucket: Bucket) -> None:
    project, start = await new_project(database), bucket.floor(NOW)
    edges = [
        start - timedelta(microseconds=1),
        start,
        start + bucket.width - timedelta(microseconds=1),
        start + bucket.width,
    ]
    await append(database, project, [(ts, "a") for ts in edges])
    query = SeriesQuery(project, bucket, 100, None, None, [])
    assert [(p.ts, p.count) for p in await MetricsStore(database).newest(query)] == [
        (start - bucket.width, 1),
        (start, 2),
        (start + bucket.width, 1),
    ]
    within = replace(query, start=start, end=start + bucket.width)
    assert await MetricsStore(database).newest(within) == [Point(start, 2)]


async def test_another_projects_events_are_not_counted(database: Database) -> None:
    mine, others = await new_project(database), await new_project(database)
    await append(database, mine, [(NOW, "a")])
    await append(database, others, [(NOW, "a")] * 5 + [(NOW - timedelta(days=1), "b")])
    query = SeriesQuery(mine, BUCKETS["1h"], 100, None, None, [])
    assert await MetricsStore(database).newest(query) == [Point(NOW, 1)]


async def test_a_query_over_all_of_the_calendar_is_answered(database: Database) -> None:
    project = await new_project(database)
    await append(database, project, [(NOW, "a")])
    for bucket in BUCKETS.values():
        start, end = (bucket.floor(datetime.min.replace(tzinfo=UTC)), bucket.ceil(datetime.max.replace(tzinfo=UTC)))
        query = SeriesQuery(project, bucket, 10_000, start, end, [])
        assert await MetricsStore(database).newest(query) == [Point(bucket.floor(NOW), 1)]

"""Reading the log: a filter lets through what it says, and paging shows every event once."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage import NOW, all_of, log_of, new_event, new_project, opened, settings_for
from storage import append as append_to

from nimbus_server.events.store import Cursor, EventFilter, EventReader, LoggedEvent
from nimbus_server.ingest.store import EventLog
from nimbus_server.postgres.database import Database
from nimbus_server.postgres.partitions import Partitions

TIMES = [NOW - timedelta(days=days, microseconds=us) for days in (0, 1, 40) for us in (0, 1)]
PROPS = [{}, {"plan": "pro"}, {"plan": "pro", "seats": 3, "tags": ["a", "b"]}, {"plan": {"name": "pro"}}]
EVENT = st.tuples(
    st.sampled_from(TIMES),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, "u", "v"]),
    st.sampled_from(PROPS),
    st.sampled_from([None, "x"]),
    st.sampled_from(PROPS),
)
WANTED = st.sampled_from([b"", *map(orjson.dumps, [*PROPS, {"tags": ["b"]}, {"seats": 3}, {"seats": "3"}])])
Sent = tuple[datetime, str, str | None, Any] | tuple[datetime, str, str | None, Any, str | None, Any]
FILTERS = st.builds(
    EventFilter,
    project_id=st.just(UUID(int=0)),
    names=st.lists(st.sampled_from(["a", "b", "x"]), max_size=2),
    user_id=st.sampled_from([None, "u", "nobody"]),
    since=st.sampled_from([None, *TIMES]),
    until=st.sampled_from([None, *TIMES]),
    props_json=WANTED,
    anonymous_id=st.sampled_from([None, "x", "nobody"]),
    context_json=WANTED,
)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with opened(Database(settings_for(dsn))) as pool:
        yield pool


async def append(database: Database, project: UUID, events: Sequence[Sent]) -> None:
    log = EventLog(database, Partitions(database))
    assert await append_to(log, project, [new_event(*event) for event in events]) == len(events)


def contains(whole: Any, part: Any) -> bool:
    """What PostgreSQL calls containment (https://www.postgresql.org/docs/18/datatype-json.html#JSON-CONTAINMENT)."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(contains(item, wanted) for item in whole) for wanted in part)
    return type(whole) is type(part) and bool(whole == part)


def passes(event: LoggedEvent, which: EventFilter) -> bool:
    return (
        (not which.names or event.name in which.names)
        and (which.user_id is None or event.user_id == which.user_id)
        and (which.since is None or event.ts >= which.since)
        and (which.until is None or event.ts < which.until)
        and (not which.props_json or contains(event.props, orjson.loads(which.props_json)))
        and (which.anonymous_id is None or event.anonymous_id == which.anonymous_id)
        and (not which.context_json or contains(event.context, orjson.loads(which.context_json)))
    )


@given(st.lists(EVENT, max_size=12), st.lists(FILTERS, min_size=2, max_size=6))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_filter_lets_through_what_it_says(
    database: Database, events: list[Sent], filters: list[EventFilter]
) -> None:
    project, reader = await new_project(database), EventReader(database)
    await append(database, project, events)
    newest_first = sorted(await log_of(database, project), key=lambda e: (e.ts, e.id), reverse=True)
    for which in filters:
        mine = replace(which, project_id=project)
        expected = [event for event in newest_first if passes(event, which)]
        assert await reader.page(mine, 100) == expected
        assert await reader.count(mine) == len(expected)


async def test_another_projects_events_are_not_read_with_any_cursor(database: Database) -> None:
    mine, others, reader = await new_project(database), await new_project(database), EventReader(database)
    await append(database, others, [(ts, "a", "u", {}) for ts in TIMES])
    place = Cursor(NOW + timedelta(days=1), UUID(int=2**128 - 1))
    assert await reader.page(all_of(mine), 100) == await reader.page(all_of(mine), 100, after=place) == []
    assert await reader.count(all_of(mine)) == 0
    assert len(await reader.page(all_of(others), 100, after=place)) == len(TIMES)


async def test_paging_by_cursor_shows_each_event_once_while_newer_ones_come_in(database: Database) -> None:
    project, reader = await new_project(database), EventReader(database)
    await append(database, project, [(NOW - timedelta(seconds=n // 3), "a", None, {}) for n in range(20)])
    before = {event.id for event in await log_of(database, project)}
    seen: list[UUID] = []
    after = None
    while page := await reader.page(all_of(project), 3, after=after):
        seen += [event.id for event in page]
        after = Cursor(page[-1].ts, page[-1].id)
        await append(database, project, [(NOW + timedelta(seconds=len(seen)), "new", None, {})])
    assert len(seen) == len(set(seen)) == 20
    assert set(seen) == before


async def test_a_page_ends_one_event_behind_its_characters(database: Database) -> None:
    project, reader = await new_project(database), EventReader(database)
    # {"x": "…"} in props and again in context: 1,000 characters an event.
    half = {"x": "y" * (500 - len('{"x": ""}'))}
    await append(database, project, [(NOW - timedelta(seconds=n), "a", None, half, None, half) for n in range(20)])
    newest_first = sorted(await log_of(database, project), key=lambda e: e.ts, reverse=True)
    assert {event.json_characters for event in newest_first} == {1000}
    for characters, count in ((1, 2), (1000, 2), (1001, 3), (9_999, 11), (100_000, 20)):
        assert await reader.page(all_of(project), 100, characters_max=characters) == newest_first[:count]
    assert await reader.page(all_of(project), 2, 5, characters_max=9_999) == newest_first[5:7]

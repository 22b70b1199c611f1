"""Answers are those of a plain reading of the log, whatever part of it is in segments, and whatever became of these."""

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
from answers_world import Log, World, kept, open_world
from databases import new_database
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import agreement
from oracle.examples import examples
from oracle.random_events import PATHS
from people_cells import expected_behind
from random_logs import Case, cases

from nimbus.v1.catalog_pb2 import ListEventNamesRequest, ListPropertiesRequest, ListPropertyValuesRequest
from nimbus_server.clock import micros, moment
from nimbus_server.errors import NimbusError
from nimbus_server.postgres.partitions import month_of

LOOK = settings(deadline=None, suppress_health_check=[*HealthCheck])


@pytest.fixture(scope="module")
async def world(
    dsn_of: Callable[[str], str], template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("answers")
    async with open_world(await new_database(dsn_of, template_database), folder) as opened:
        yield opened


@given(case=cases("QueryTrend"))
@settings(LOOK, max_examples=examples(8))
async def test_trends_are_those_of_the_log(world: World, case: Case) -> None:
    await check(world, case)


@given(case=cases("QueryFunnel"))
@settings(LOOK, max_examples=examples(8))
async def test_funnels_are_those_of_the_log(world: World, case: Case) -> None:
    await check(world, case)


@given(case=cases("QueryRetention"))
@settings(LOOK, max_examples=examples(8))
async def test_retention_is_that_of_the_log(world: World, case: Case) -> None:
    await check(world, case)


@given(case=cases("QueryPaths"))
@settings(LOOK, max_examples=examples(8))
async def test_paths_are_those_of_the_log(world: World, case: Case) -> None:
    await check(world, case)


@given(case=st.sampled_from(["QueryTrend", "QueryPaths"]).flatmap(cases), path=PATHS)
@settings(LOOK, max_examples=examples(5))
async def test_the_catalog_is_that_of_the_log(world: World, case: Case, path: str) -> None:
    log, events, days = await stored(world, case)
    since = Timestamp(seconds=0)
    names = ListEventNamesRequest()
    agreement.check_event_names(await log.ask("ListEventNames", names, case.now, days), names, events)
    properties = ListPropertiesRequest(since=since, limit=1_000)
    agreement.check_properties(await log.ask("ListProperties", properties, case.now, days), properties, events)
    for asked in (path, "user_id"):
        values = ListPropertyValuesRequest(since=since, property=asked)
        agreement.check_values(await log.ask("ListPropertyValues", values, case.now, days), values, events)


async def check(world: World, case: Case) -> None:
    """The answer, and the people behind one of its numbers, are those of the events."""
    log, events, days = await stored(world, case)
    try:
        answer = await log.ask(case.rpc, case.request, case.now, days)
    except NimbusError as error:
        # Two properties of one question; and a shift by months that may leave nothing of a short range.
        if "case of letters" in error.message or error.violations[0].field == "compare_to.shift":
            return
        raise
    check_answer(case, answer, events)
    behind = expected_behind(case.rpc, case.request, answer, events, case.now, Random(case.seed))
    if behind is not None:
        request, expected = behind
        people = await log.ask("ListPeopleBehind", request, case.now, days)
        assert sorted(person.id for person in people.people) == sorted(expected)
        assert people.count == len(expected)


def check_answer(case: Case, answer: Any, events: list[dict[str, Any]]) -> None:
    if case.rpc == "QueryTrend":
        agreement.check_trend(answer, case.request, "UTC", events)
    elif case.rpc == "QueryFunnel":
        agreement.check_funnel(answer, case.request, events)
    elif case.rpc == "QueryRetention":
        agreement.check_retention(answer, case.request, events, case.now)
    else:
        agreement.check_paths(answer, case.request, events)


async def stored(world: World, case: Case) -> tuple[Log, list[dict[str, Any]], int | None]:
    """The log of a case, the events that an answer is made of, and for how many days they are kept."""
    around, random = moment(case.around), Random(case.seed)
    log = await world.new_log(around)
    await log.store(case.filler)
    for part, steps in zip(case.parts, case.steps, strict=True):
        await log.store(part)
        for step in steps:
            await take(step, log, random)
    if not case.cuts or case.now < month_of(around):
        return log, log.events, None
    cut = month_of(around)
    return log, kept(log.events, micros(cut)), (case.now - cut).days


async def take(step: str, log: Log, random: Random) -> None:
    """Let something happen to a log."""
    if step.startswith("export"):
        await log.export(250_000 if step == "export all" else random.randint(1, 10))
    elif step == "compact":
        await log.compact()
    elif step == "rebuild":
        await log.rebuild()
    elif step == "erase":
        field = random.choice(["user_id", "anonymous_id"])
        if values := sorted({event[field] for event in log.events if event[field] is not None}):
            await log.erase(field, random.choice(values))
    elif step == "erase some":
        await log.erase_some(random.randint(0, 30))
    else:
        await log.finish_erasures()

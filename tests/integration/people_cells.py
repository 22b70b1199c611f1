"""Numbers of answers, chosen at random, and the people whom a plain reading of the question finds behind them."""

from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Any

from oracle import paths as plain_paths
from oracle.filters import Event
from oracle.funnel import Attempt, Funnel
from oracle.retention import retention
from oracle.source import uid_of
from oracle.trend import expected_people

from nimbus.v1.funnel_pb2 import FunnelCounting
from nimbus.v1.people_pb2 import FunnelCell, ListPeopleBehindRequest, PathCell, RetentionCell, TrendCell
from nimbus_server.clock import moment

Behind = tuple[ListPeopleBehindRequest, set[str]] | None


def expected_behind(
    rpc: str, request: Any, answer: Any, events: Sequence[Event], now: datetime, random: Random
) -> Behind:
    """The request for the people behind a number, and who they are; None where the answer has none with people."""
    if rpc == "QueryTrend":
        return _of_trend(request, answer, events, random)
    if rpc == "QueryFunnel":
        return _of_funnel(request, answer, events, random)
    if rpc == "QueryRetention":
        return _of_retention(request, events, now, random)
    return _of_paths(request, answer, events, random)


def _of_trend(request: Any, answer: Any, events: Sequence[Event], random: Random) -> Behind:
    if not answer.series:
        return None
    line = random.choice(answer.series)
    cell = TrendCell(series=random.randrange(len(request.series)))
    if random.random() < 0.5:
        cell.breakdown.extend(line.breakdown)
        cell.unset.extend(line.unset)
        cell.is_other = line.is_other
    if line.points and random.random() < 0.5:
        cell.ts.CopyFrom(random.choice(line.points).ts)
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("compare_to")
    uids = expected_people(asked, "UTC", events, cell)
    known = {_person(event) for event in events} - {None}
    people = {person for person in known if uid_of(person) in uids and person is not None}
    return ListPeopleBehindRequest(trend=asked, trend_cell=cell, page_size=1000), people


def _of_funnel(request: Any, answer: Any, events: Sequence[Event], random: Random) -> Behind:
    if request.counting not in {FunnelCounting.FUNNEL_COUNTING_UNSPECIFIED, FunnelCounting.FUNNEL_COUNTING_PEOPLE}:
        return None
    funnel = Funnel(request, events)
    attempts: list[Attempt] = funnel.counted
    step = random.randint(1, len(request.steps))
    cell = FunnelCell(step=step)
    if answer.groups and random.random() < 0.5:
        place = random.randrange(len(answer.groups))
        group = answer.groups[place]
        attempts = [*funnel.groups().values()][place]
        cell.is_unset, cell.is_other = group.is_unset, group.is_other
        if not group.is_unset and not group.is_other:
            cell.value = group.value
    elif answer.buckets and random.random() < 0.5:
        place = random.randrange(len(answer.buckets))
        start = answer.buckets[place].ts
        ends = [*(bucket.ts.ToMicroseconds() for bucket in answer.buckets[1:]), funnel.end]
        attempts = funnel.in_bucket(start.ToMicroseconds(), ends[place])
        cell.ts.CopyFrom(start)
    reached = [attempt for attempt in attempts if attempt.events[step - 1]]
    if step > 1 and random.random() < 0.5:
        cell.dropped = True
        before = step - 3 if funnel.optional == step - 2 else step - 2
        reached = [attempt for attempt in attempts if attempt.events[before] and not attempt.events[step - 1]]
    return (
        ListPeopleBehindRequest(funnel=request, funnel_cell=cell, page_size=1000),
        {attempt.person for attempt in reached},
    )


def _of_retention(request: Any, events: Sequence[Event], now: datetime, random: Random) -> Behind:
    cohorts, _ = retention(request, events, now)
    cohort = random.choice(cohorts)
    cell = RetentionCell()
    cell.start.FromDatetime(moment(cohort.start))
    expected = cohort.members
    if random.random() < 0.7:
        cell.period = random.randrange(len(cohort.returned))
        expected = cohort.returned[cell.period]
        if random.random() < 0.5:
            cell.dropped = True
            expected = cohort.members - expected
    return ListPeopleBehindRequest(retention=request, retention_cell=cell, page_size=1000), expected


def _of_paths(request: Any, answer: Any, events: Sequence[Event], random: Random) -> Behind:
    if not answer.edges:
        return None
    edge = random.choice(answer.edges)
    start, end = request.range.start.ToMicroseconds(), request.range.end.ToMicroseconds()
    found = plain_paths.paths(events, request, start, end)
    _, hidden = plain_paths.edges(found, request.steps or 3, request.limit or 50)
    source, target = getattr(edge, "from"), edge.to
    rest = [(first, last) for step, first, last in hidden if step == edge.step]
    wanted: list[tuple[str | None, str | None]] = rest if edge.is_other else [(source, target)]
    cell = PathCell(step=edge.step, to=target, is_other=edge.is_other, **{"from": source})
    expected = plain_paths.people(found, edge.step, wanted)
    return ListPeopleBehindRequest(paths=request, path_cell=cell, page_size=1000), expected


def _person(event: Event) -> str | None:
    person: str | None = event["user_id"] if event["user_id"] is not None else event["anonymous_id"]
    return person

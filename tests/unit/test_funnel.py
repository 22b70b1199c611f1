"""A funnel as SQL says what its plain reading does."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from oracle.funnel import OTHER, Attempt, Funnel, furthest_of_all_chains, place
from oracle.random_funnels import EVENTS, REQUESTS
from oracle.source import make_src, uid_of

from nimbus.v1.funnel_pb2 import QueryFunnelRequest, QueryFunnelResponse
from nimbus.v1.people_pb2 import FunnelCell
from nimbus_server.analyses.funnel import answer
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.clock import micros

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOON = micros(datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connected:
        yield connected


def asked(
    connection: duckdb.DuckDBPyConnection, request: QueryFunnelRequest, events: list[dict[str, Any]]
) -> tuple[QueryFunnelResponse, answer.Funnel]:
    question = answer.read(request, Asked(NOW, "UTC"))
    needs = question.needs
    read = [
        event
        for event in events
        if (needs.start or 0) <= event["t"] < (needs.end or 2**62)
        and (needs.names is None or event["name"] in needs.names)
    ]
    make_src(connection, read, needs.properties)
    return question.answer(lambda sql: connection.execute(sql).fetchall(), AsOf(7, NOW)), question


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, request=REQUESTS)
def test_a_funnel_says_what_its_plain_reading_does(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    message = ParseDict(request, QueryFunnelRequest())
    response, _ = asked(connection, message, events)
    funnel = Funnel(message, events)
    assert said(response.steps) == rounded(funnel.steps(funnel.counted))
    assert_times(response, funnel.seconds_to_convert())
    if message.HasField("breakdown"):
        groups = funnel.groups()
        names = [OTHER if g.is_other else None if g.is_unset else g.value for g in response.groups]
        assert names == [*groups]
        assert [said(g.steps) for g in response.groups] == [rounded(funnel.steps(some)) for some in groups.values()]
    if message.bucket:
        starts = [bucket.ts.ToMicroseconds() for bucket in response.buckets]
        ends = [*starts[1:], funnel.end]
        expected = [funnel.in_bucket(start, end) for start, end in zip(starts, ends, strict=True)]
        assert [said(bucket.steps) for bucket in response.buckets] == [rounded(funnel.steps(some)) for some in expected]


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, request=REQUESTS)
def test_the_people_behind_a_number_are_those_that_it_counts(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    message = ParseDict({**request, "counting": "FUNNEL_COUNTING_PEOPLE"}, QueryFunnelRequest())
    response, question = asked(connection, message, events)
    funnel = Funnel(message, events)

    def behind(cell: FunnelCell) -> list[int]:
        return sorted(uid for (uid,) in connection.execute(question.people(cell)).fetchall())

    def uids(attempts: list[Attempt]) -> list[int]:
        return sorted(uid for attempt in attempts if (uid := uid_of(attempt.person)) is not None)

    last = len(message.steps)
    before = last - 2 if funnel.optional == last - 2 else last - 1
    reached = [a for a in funnel.counted if a.events[last - 1]]
    assert behind(FunnelCell(step=last)) == uids(reached)
    dropped = [a for a in funnel.counted if a.events[before - 1] and not a.events[last - 1]]
    assert behind(FunnelCell(step=last, dropped=True)) == uids(dropped)
    for group, some in zip(response.groups, funnel.groups().values(), strict=False):
        value = None if group.is_unset or group.is_other else group.value
        cell = FunnelCell(step=1, value=value, is_unset=group.is_unset, is_other=group.is_other)
        assert behind(cell) == uids(some)
    for bucket in response.buckets[:1]:
        end = response.buckets[1].ts.ToMicroseconds() if len(response.buckets) > 1 else funnel.end
        assert behind(FunnelCell(step=1, ts=bucket.ts)) == uids(funnel.in_bucket(bucket.ts.ToMicroseconds(), end))


def assert_times(response: QueryFunnelResponse, seconds: list[float]) -> None:
    edges, counts = [*response.time_to_convert.edges_seconds], [*response.time_to_convert.counts]
    assert sum(counts) == len(seconds)
    assert len(edges) == (len(counts) + 1 if seconds else 0)
    if len(set(seconds)) > 1:
        assert (edges[0], edges[-1]) == (seconds[0], seconds[-1])
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            # Edges are doubles: what lies on one may be in either of its bins.
            inside = sum(low + 1e-6 < one < high - 1e-6 for one in seconds)
            assert inside <= count <= sum(low - 1e-6 <= one <= high + 1e-6 for one in seconds)


def said(steps: Any) -> list[dict[str, Any]]:
    said_of = [
        MessageToDict(step, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for step in steps
    ]
    return rounded([{**one, "count": int(one["count"])} for one in said_of])


def rounded(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in step.items()
            if value is not None
        }
        for step in steps
    ]


@settings(max_examples=50, deadline=None)
@given(events=EVENTS, request=REQUESTS)
def test_taking_the_first_event_that_fits_gets_as_far_as_any_choice(
    events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    request = {**request, "order": "FUNNEL_ORDER_ORDERED", "tie_seconds": 0, "exclusions": [], "bucket": ""}
    request["steps"] = [{**step, "optional": False} for step in request["steps"]]
    request["counting"] = "FUNNEL_COUNTING_PEOPLE"
    funnel = Funnel(ParseDict(request, QueryFunnelRequest()), events)
    own = sorted((e for e in events if e["user_id"] == "u1" and e["t"] >= funnel.start), key=place)
    if request["completes"] == "FUNNEL_COMPLETES_IN_RANGE":
        own = [event for event in own if event["t"] < funnel.end]
    for start in funnel.starts(own):
        assert funnel.attempt("u1", own, start).reached == furthest_of_all_chains(funnel, own, start)


def event(name: str, minutes: float, seq: int = 0, **props: Any) -> dict[str, Any]:
    t = NOON + int(minutes * 60_000_000)
    return {"seq": seq or t, "t": t, "name": name, "user_id": "u1", "anonymous_id": None, "props": props, "context": {}}


def request_of(*names: str, **fields: Any) -> QueryFunnelRequest:
    steps = [{"selector": {"names": [name]}} for name in names]
    day = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    return ParseDict({"range": day, "within": "1h", "steps": steps, **fields}, QueryFunnelRequest())


def counts(response: QueryFunnelResponse) -> list[int]:
    return [step.count for step in response.steps]


TWO_STARTS = [event("A", 60), event("A", 90), event("B", 105), event("C", 135)]


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("PRESET_MIXPANEL", [1, 1, 0]), ("PRESET_POSTHOG", [1, 1, 1]), ("PRESET_AMPLITUDE", [1, 1, 1])],
)
def test_a_second_start_counts_where_the_preset_has_it_count(
    connection: duckdb.DuckDBPyConnection, preset: str, expected: list[int]
) -> None:
    response, _ = asked(connection, request_of("A", "B", "C", preset=preset), TWO_STARTS)
    assert counts(response) == expected


def test_an_explicit_field_wins_over_the_preset(connection: duckdb.DuckDBPyConnection) -> None:
    request = request_of("A", "B", "C", preset="PRESET_MIXPANEL", entry="FUNNEL_ENTRY_ANY", tie_seconds=0)
    response, _ = asked(connection, request, TWO_STARTS)
    assert counts(response) == [1, 1, 1]
    assert (response.semantics["entry"], response.semantics["tie_seconds"]) == ("ANY", "0")


def test_the_same_event_is_never_two_steps(connection: duckdb.DuckDBPyConnection) -> None:
    response, _ = asked(connection, request_of("A", "A", "A"), [event("A", 0), event("A", 0, seq=1)])
    assert counts(response) == [1, 1, 0]


def test_events_of_one_moment_are_in_order_of_their_position(connection: duckdb.DuckDBPyConnection) -> None:
    response, _ = asked(connection, request_of("A", "B"), [event("A", 0, seq=5), event("B", 0, seq=6)])
    assert counts(response) == [1, 1]
    response, _ = asked(connection, request_of("A", "B"), [event("A", 0, seq=6), event("B", 0, seq=5)])
    assert counts(response) == [1, 0]


def test_the_answer_says_what_was_in_force(connection: duckdb.DuckDBPyConnection) -> None:
    request = request_of("A", "B", preset="PRESET_POSTHOG", bucket="1h")
    request.within = ""
    response, _ = asked(connection, request, TWO_STARTS)
    assert dict(response.semantics) == {
        "range": "2026-01-01T00:00:00Z/2026-01-02T00:00:00Z",
        "timezone": "UTC",
        "week_start": "SUNDAY",
        "within": "14d",
        "completes": "IN_RANGE",
        "entry": "ANY",
        "order": "ORDERED",
        "tie_seconds": "0",
        "on_exclusion": "DROP",
        "counting": "PEOPLE",
        "bucket": "1h",
    }
    assert response.as_of_position == 7
    assert len(response.buckets) == 24

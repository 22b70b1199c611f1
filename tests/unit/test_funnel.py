"""A funnel as SQL says what its plain reading does."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from oracle.agreement import check_funnel
from oracle.examples import examples
from oracle.funnel import Attempt, Funnel, furthest_of_all_chains, place
from oracle.random_funnels import COMMON_REQUESTS, EVENTS, REQUESTS
from oracle.source import make_src, uid_of

from nimbus.v1.funnel_pb2 import QueryFunnelRequest, QueryFunnelResponse
from nimbus.v1.people_pb2 import FunnelCell
from nimbus_server.analyses.funnel import answer
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError

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


@settings(max_examples=examples(100), deadline=None)
@given(events=EVENTS, request=REQUESTS)
def test_a_funnel_says_what_its_plain_reading_does(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    assert_says_the_same(connection, events, request)


@settings(max_examples=examples(60), deadline=None)
@given(events=EVENTS, request=COMMON_REQUESTS)
def test_the_most_common_funnels_say_what_their_plain_reading_does(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    assert_says_the_same(connection, events, request)


def assert_says_the_same(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], request: dict[str, Any]
) -> None:
    message = ParseDict(request, QueryFunnelRequest())
    response, _ = asked(connection, message, events)
    check_funnel(response, message, events)


@settings(max_examples=examples(40), deadline=None)
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


@settings(max_examples=examples(40), deadline=None)
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


def test_a_step_may_have_the_fields_of_its_selector_itself(connection: duckdb.DuckDBPyConnection) -> None:
    request = request_of("A", steps=[{"names": ["A"]}, {"names": ["B"], "label": "Bought"}])
    response, _ = asked(connection, request, [event("A", 0), event("B", 1)])
    assert [(step.label, step.count) for step in response.steps] == [("A", 1), ("Bought", 1)]


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


def test_after_an_exclusion_the_next_start_begins_a_new_attempt(connection: duckdb.DuckDBPyConnection) -> None:
    # As Mixpanel documents it: enters at the first, leaves at the second, enters at the third and converts.
    request = request_of("A", "B", counting="FUNNEL_COUNTING_TOTALS", exclusions=[{"selector": {"names": ["A"]}}])
    response, _ = asked(connection, request, [event("A", 0), event("A", 1), event("A", 2), event("B", 3)])
    assert counts(response) == [2, 1]


def test_an_exclusion_stops_one_and_drops_one(connection: duckdb.DuckDBPyConnection) -> None:
    exclusions = [{"selector": {"names": ["X"]}, "from_step": 2}]
    events = [event("A", 0), event("B", 1), event("X", 2), event("C", 3)]
    for what, expected in (("STOP", [1, 1, 0]), ("DROP", [0, 0, 0])):
        on_exclusion = f"FUNNEL_ON_EXCLUSION_{what}"
        request = request_of("A", "B", "C", exclusions=exclusions, on_exclusion=on_exclusion)
        assert counts(asked(connection, request, events)[0]) == expected


def test_25_values_are_told_apart_and_the_rest_is_other(connection: duckdb.DuckDBPyConnection) -> None:
    values = [f"v{number:02}" for number in range(26)]
    events = [{**event("A", number, p=value), "user_id": value} for number, value in enumerate(values)]
    events += [{**event("A", 30, p="v25"), "user_id": "one more"}, {**event("A", 31), "user_id": "has none"}]
    response, question = asked(connection, request_of("A", "B", breakdown={"property": "props.p"}), events)
    assert [group.value for group in response.groups] == ["v25", *values[:24], "other"]
    assert response.groups[-1].is_other
    # v24 and the one who has no value, which is the last of those that are as frequent.
    assert response.groups[-1].steps[0].count == 2
    assert len(connection.execute(question.people(FunnelCell(step=1, is_other=True))).fetchall()) == 2


TWO = [{"selector": {"names": ["A"]}}, {"selector": {"names": ["B"]}}]


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"steps": []}, "steps", "FIELD_REQUIRED"),
        ({"steps": TWO[:1]}, "steps", "FIELD_REQUIRED"),
        ({"steps": TWO[:1] * 21}, "steps", "FIELD_TOO_LONG"),
        ({"steps": [{"names": ["A"], **TWO[0]}, *TWO]}, "steps[0].selector", "FIELD_INVALID"),
        ({"steps": [{"names": [""]}, *TWO]}, "steps[0].names", "FIELD_REQUIRED"),
        ({"steps": [{"optional": True}, *TWO]}, "steps[0].optional", "FIELD_INVALID"),
        ({"steps": [*TWO, {"optional": True}]}, "steps[2].optional", "FIELD_INVALID"),
        ({"steps": [TWO[0], *[{"optional": True}] * 2, TWO[1]]}, "steps[2].optional", "FIELD_INVALID"),
        (
            {"steps": [TWO[0], {"optional": True}, TWO[1]], "order": "FUNNEL_ORDER_STRICT"},
            "steps[1].optional",
            "FIELD_INVALID",
        ),
        ({"within": "soon"}, "within", "FIELD_INVALID"),
        ({"within": "367d"}, "within", "FIELD_INVALID"),
        ({"within": "8785h"}, "within", "FIELD_INVALID"),
        ({"tie_seconds": 61}, "tie_seconds", "FIELD_INVALID"),
        ({"tie_seconds": -1}, "tie_seconds", "FIELD_INVALID"),
        ({"tie_seconds": 1, "order": "FUNNEL_ORDER_UNORDERED"}, "tie_seconds", "FIELD_INVALID"),
        ({"exclusions": [{}]}, "exclusions[0].selector", "FIELD_REQUIRED"),
        ({"exclusions": [{"selector": {}}] * 11}, "exclusions", "FIELD_TOO_LONG"),
        ({"exclusions": [{"selector": {}}], "order": "FUNNEL_ORDER_STRICT"}, "exclusions", "FIELD_INVALID"),
        ({"exclusions": [{"selector": {}, "from_step": 2}]}, "exclusions[0].from_step", "FIELD_INVALID"),
        ({"exclusions": [{"selector": {}, "to_step": 1}]}, "exclusions[0].to_step", "FIELD_INVALID"),
        (
            {"steps": [TWO[0], {"optional": True}, TWO[1]], "exclusions": [{"selector": {}, "to_step": 2}]},
            "exclusions[0].to_step",
            "FIELD_INVALID",
        ),
        ({"hold_constant": ["props.p"] * 6}, "hold_constant", "FIELD_TOO_LONG"),
        ({"hold_constant": ["plan"]}, "hold_constant[0]", "FIELD_INVALID"),
        ({"breakdown": {}}, "breakdown.property", "FIELD_REQUIRED"),
        ({"breakdown": {"property": "name", "step": 1}}, "breakdown.step", "FIELD_INVALID"),
        (
            {"breakdown": {"property": "name", "attribution": "FUNNEL_ATTRIBUTION_STEP", "step": 3}},
            "breakdown.step",
            "FIELD_INVALID",
        ),
        ({"counting": 9}, "counting", "FIELD_INVALID"),
        ({"preset": 9}, "preset", "FIELD_INVALID"),
        ({"bucket": "2d"}, "bucket", "FIELD_INVALID"),
        ({"timezone": "Mars"}, "timezone", "FIELD_INVALID"),
        ({"range": {}}, "range", "FIELD_REQUIRED"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(NimbusError) as raised:
        answer.read(request_of("A", "B", **fields), Asked(NOW, "UTC"))
    assert ([violation.field for violation in raised.value.violations], raised.value.reason) == ([field], reason)


def test_an_answer_that_would_be_too_large_is_refused() -> None:
    week = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-05T00:00:00Z"}
    with pytest.raises(NimbusError) as raised:
        answer.read(request_of("A", "B", bucket="1m", range=week), Asked(NOW, "UTC"))
    assert raised.value.reason == "QUESTION_TOO_LARGE"


@pytest.mark.parametrize(
    ("fields", "cell", "field"),
    [
        ({}, FunnelCell(), "funnel_cell.step"),
        ({}, FunnelCell(step=3), "funnel_cell.step"),
        ({}, FunnelCell(step=1, dropped=True), "funnel_cell.dropped"),
        ({}, FunnelCell(step=1, value="x"), "funnel_cell.value"),
        ({}, FunnelCell(step=1, is_other=True), "funnel_cell.is_other"),
        ({}, FunnelCell(step=1, ts={"seconds": 0}), "funnel_cell.ts"),
        ({"bucket": "1h"}, FunnelCell(step=1, ts={"seconds": 1}), "funnel_cell.ts"),
        ({"breakdown": {"property": "name"}}, FunnelCell(step=1, value="\0"), "funnel_cell.value"),
        ({"counting": "FUNNEL_COUNTING_TOTALS"}, FunnelCell(step=1), "funnel.counting"),
    ],
)
def test_a_cell_that_the_answer_does_not_have_is_refused(fields: dict[str, Any], cell: FunnelCell, field: str) -> None:
    question = answer.read(request_of("A", "B", **fields), Asked(NOW, "UTC"))
    with pytest.raises(NimbusError) as raised:
        question.people(cell)
    assert [violation.field for violation in raised.value.violations] == [field]


def test_a_later_start_may_have_its_next_step_just_before_it(connection: duckdb.DuckDBPyConnection) -> None:
    events = [event("A", 0), event("B", 10), event("A", 10 + 1 / 60)]
    for tie_seconds, expected in ((2, [1, 1]), (0, [1, 0])):
        request = request_of("A", "B", within="1m", tie_seconds=tie_seconds)
        assert counts(asked(connection, request, events)[0]) == expected

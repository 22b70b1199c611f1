"""The answers of QueryTrend are those of its plain reading, and what a request may not ask is refused by name."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle.agreement import check_trend
from oracle.examples import examples
from oracle.random_trends import trends
from oracle.source import make_src
from oracle.trend import expected_people

from nimbus.v1.people_pb2 import TrendCell
from nimbus.v1.trend_pb2 import QueryTrendRequest, QueryTrendResponse, TrendSeries
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.analyses.trend.answer import Trend, read
from nimbus_server.analyses.trend.request import read_plan
from nimbus_server.clock import MINUTE, micros
from nimbus_server.errors import NimbusError, Reason

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ASKED = Asked(NOW, "Europe/Berlin")
AS_OF = AsOf(7, NOW)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connected:
        yield connected


def ask(
    connection: duckdb.DuckDBPyConnection, request: QueryTrendRequest, events: list[dict[str, Any]]
) -> tuple[Trend, QueryTrendResponse]:
    question = read(request, ASKED)
    needs = question.needs
    assert needs.start is not None
    assert needs.end is not None
    seen = [
        event
        for event in events
        if needs.start <= event["t"] < needs.end and (needs.names is None or event["name"] in needs.names)
    ]
    make_src(connection, seen, needs.properties)
    return question, question.answer(lambda sql: connection.execute(sql).fetchall(), AS_OF)


@settings(max_examples=examples(100), deadline=None)
@given(asked=trends())
def test_a_trend_has_the_numbers_of_its_plain_reading(
    connection: duckdb.DuckDBPyConnection, asked: tuple[QueryTrendRequest, list[dict[str, Any]]]
) -> None:
    request, events = asked
    try:
        _, answer = ask(connection, request, events)
    except NimbusError as error:  # a shift by months may leave nothing of a short range
        assume(error.violations[0].field != "compare_to.shift")
        raise
    check_trend(answer, request, ASKED.timezone, events)


@settings(max_examples=examples(60), deadline=None)
@given(asked=trends(), data=st.data())
def test_the_people_behind_a_cell_are_those_of_its_events(
    connection: duckdb.DuckDBPyConnection, asked: tuple[QueryTrendRequest, list[dict[str, Any]]], data: st.DataObject
) -> None:
    request, events = asked
    request.ClearField("compare_to")
    question, answer = ask(connection, request, events)
    assume(answer.series)
    line: TrendSeries = data.draw(st.sampled_from(answer.series))
    cell = TrendCell(series=data.draw(st.integers(0, len(request.series) - 1)))
    if data.draw(st.booleans()):
        cell.breakdown.extend(line.breakdown)
        cell.unset.extend(line.unset)
        cell.is_other = line.is_other
    if line.points and data.draw(st.booleans()):
        cell.ts.CopyFrom(data.draw(st.sampled_from(line.points)).ts)
    rows = connection.execute(question.people(cell)).fetchall()
    people = [uid for (uid,) in rows]
    assert len(people) == len(set(people))
    assert set(people) == expected_people(request, ASKED.timezone, events, cell)


def test_a_session_counts_for_each_series_and_value_that_has_an_event_in_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    start = datetime(2026, 11, 20, tzinfo=UTC)
    seen = [("a", 0, 1), ("a", 10, 2), ("a", 20, 1), ("b", 30, 2), ("a", 61, 1), ("b", 91, 1)]
    events = [
        {"seq": seq, "t": micros(start) + minute * MINUTE, "name": name, "user_id": "ada", "props": {"n": n}}
        for seq, (name, minute, n) in enumerate(seen, start=1)
    ]
    series = [{"selector": {"names": [name]}, "measure": "TREND_MEASURE_SESSIONS"} for name in ("a", "b")]
    limits = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z"}
    for breakdowns, totals in (([], [2, 2]), (["props.n"], [2, 1, 1, 1])):
        fields = {"range": limits, "series": series, "breakdowns": breakdowns}
        _, answer = ask(connection, ParseDict(fields, QueryTrendRequest()), events)
        assert [line.total for line in answer.series] == totals


VALID: dict[str, Any] = {"range": {"last": "7d"}, "series": [{}]}
SUM = "TREND_MEASURE_SUM"


def test_no_buckets_may_be_said_or_left_out() -> None:
    asked = [read_plan(ParseDict({**VALID, **said}, QueryTrendRequest()), ASKED) for said in ({}, {"bucket": "none"})]
    assert asked[0] == asked[1]
    assert asked[0].period.buckets is None


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"range": {}}, Reason.FIELD_REQUIRED, "range"),
        ({"timezone": "Mars/Olympus"}, Reason.FIELD_INVALID, "timezone"),
        ({"preset": 9}, Reason.FIELD_INVALID, "preset"),
        ({"weekStart": 9}, Reason.FIELD_INVALID, "week_start"),
        ({"bucket": "2h"}, Reason.FIELD_INVALID, "bucket"),
        ({"bucket": "1m", "range": {"last": "8d"}}, Reason.FIELD_INVALID, "bucket"),
        ({"series": []}, Reason.FIELD_REQUIRED, "series"),
        ({"series": [{}] * 11}, Reason.FIELD_TOO_LONG, "series"),
        ({"series": [{}, {"measure": 99}]}, Reason.FIELD_INVALID, "series[1].measure"),
        ({"series": [{"measure": SUM}]}, Reason.FIELD_REQUIRED, "series[0].property"),
        ({"series": [{"measure": SUM, "property": "nope"}]}, Reason.FIELD_INVALID, "series[0].property"),
        ({"series": [{"measure": SUM, "property": "ts"}]}, Reason.FIELD_INVALID, "series[0].property"),
        ({"series": [{"property": "props.n"}]}, Reason.FIELD_INVALID, "series[0].property"),
        ({"series": [{"selector": {"names": [""]}}]}, Reason.FIELD_REQUIRED, "series[0].selector.names"),
        ({"series": [{"selector": {"filter": {}}}]}, Reason.FIELD_INVALID, "series[0].selector.filter"),
        ({"breakdowns": ["props.a"] * 4}, Reason.FIELD_TOO_LONG, "breakdowns"),
        ({"breakdowns": ["props.a", "ts"]}, Reason.FIELD_INVALID, "breakdowns[1]"),
        ({"breakdowns": ["person.plan"]}, Reason.FIELD_INVALID, "breakdowns[0]"),
        ({"breakdowns": [""]}, Reason.FIELD_REQUIRED, "breakdowns[0]"),
        ({"breakdownLimit": 101}, Reason.FIELD_INVALID, "breakdown_limit"),
        ({"breakdownLimit": -1}, Reason.FIELD_INVALID, "breakdown_limit"),
        ({"formulas": [{"expression": "A"}] * 11}, Reason.FIELD_TOO_LONG, "formulas"),
        ({"formulas": [{}]}, Reason.FIELD_REQUIRED, "formulas[0].expression"),
        ({"formulas": [{"expression": "A / C"}]}, Reason.FIELD_INVALID, "formulas[0].expression"),
        ({"formulas": [{"expression": "A" * 201}]}, Reason.FIELD_TOO_LONG, "formulas[0].expression"),
        ({"formulas": [{"expression": "A", "label": "x" * 201}]}, Reason.FIELD_TOO_LONG, "formulas[0].label"),
        ({"compareTo": {}}, Reason.FIELD_REQUIRED, "compare_to"),
        ({"compareTo": {"previous": False}}, Reason.FIELD_INVALID, "compare_to.previous"),
        ({"compareTo": {"shift": "1s"}}, Reason.FIELD_INVALID, "compare_to.shift"),
        ({"compareTo": {"shift": "0d"}}, Reason.FIELD_INVALID, "compare_to.shift"),
        ({"compareTo": {"shift": "10000y"}}, Reason.FIELD_INVALID, "compare_to.shift"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: dict[str, Any], reason: Reason, field: str) -> None:
    request = ParseDict({**VALID, **change}, QueryTrendRequest())
    with pytest.raises(NimbusError) as caught:
        read(request, ASKED)
    assert caught.value.reason is reason
    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize(
    ("start", "end", "compare_to", "field"),
    [
        ("0003-01-01T00:00:00Z", "2026-01-01T00:00:00Z", {"previous": True}, "compare_to.previous"),
        ("2026-03-30T00:00:00+02:00", "2026-03-31T00:00:00+02:00", {"shift": "1mo"}, "compare_to.shift"),
    ],
)
def test_a_comparison_that_leads_nowhere_is_refused(
    start: str, end: str, compare_to: dict[str, Any], field: str
) -> None:
    body = {**VALID, "range": {"start": start, "end": end}, "compareTo": compare_to}
    with pytest.raises(NimbusError) as caught:
        read(ParseDict(body, QueryTrendRequest()), ASKED)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_an_answer_of_too_many_points_is_refused_before_it_is_computed() -> None:
    body = {"range": {"last": "30d"}, "bucket": "1h", "breakdowns": ["props.k"], "breakdownLimit": 100}
    read(ParseDict({**body, "series": [{}]}, QueryTrendRequest()), ASKED)
    for more in ({"series": [{}, {}]}, {"series": [{}], "compareTo": {"previous": True}}):
        with pytest.raises(NimbusError) as caught:
            read(ParseDict({**body, **more}, QueryTrendRequest()), ASKED)
        assert caught.value.reason is Reason.QUESTION_TOO_LARGE


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        ({"series": 1}, "trend_cell.series"),
        ({"series": -1}, "trend_cell.series"),
        ({"ts": "2026-11-24T12:00:00Z"}, "trend_cell.ts"),
        ({"breakdown": ["x", "y"]}, "trend_cell.breakdown"),
        ({"breakdown": ["\0"]}, "trend_cell.breakdown"),
        ({"breakdown": ["x"], "unset": [1]}, "trend_cell.unset"),
        ({"unset": [0]}, "trend_cell.breakdown"),
    ],
)
def test_a_cell_that_no_answer_has_is_refused_by_name(cell: dict[str, Any], field: str) -> None:
    body = {**VALID, "bucket": "1d", "breakdowns": ["props.k"]}
    question = read(ParseDict(body, QueryTrendRequest()), ASKED)
    with pytest.raises(NimbusError) as caught:
        question.people(ParseDict(cell, TrendCell()))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_rest_of_a_question_without_breakdowns_has_no_people() -> None:
    with pytest.raises(NimbusError, match="breakdowns"):
        read(ParseDict(VALID, QueryTrendRequest()), ASKED).people(TrendCell(is_other=True))


def test_the_answer_says_by_which_rules_and_as_of_when(connection: duckdb.DuckDBPyConnection) -> None:
    body = {
        **VALID,
        "bucket": "1w",
        "preset": "PRESET_POSTHOG",
        "breakdowns": ["props.k"],
        "compareTo": {"previous": True},
    }
    _, answer = ask(connection, ParseDict(body, QueryTrendRequest()), [])
    assert answer.as_of_position == AS_OF.position
    assert answer.complete_through.ToDatetime(tzinfo=UTC) == NOW
    assert dict(answer.semantics) == {
        "range": "2026-11-18T23:00:00Z/2026-11-25T23:00:00Z",
        "timezone": "Europe/Berlin",
        "week_start": "SUNDAY",
        "bucket": "1w",
        "series[0].measure": "EVENTS",
        "breakdown_limit": "25",
        "compare_to": "2026-11-11T23:00:00Z/2026-11-18T23:00:00Z",
    }


def test_only_what_is_asked_about_is_read() -> None:
    of_names = [{"selector": {"names": ["a", "b"]}}, {"selector": {"names": ["c"]}, "measure": "TREND_MEASURE_PEOPLE"}]
    assert needs(of_names).names == frozenset("abc")
    assert needs([*of_names, {}]).names is None
    # A session goes on through events of all names.
    assert needs([{**of_names[0], "measure": "TREND_MEASURE_SESSIONS"}]).names is None


def needs(series: list[dict[str, Any]]) -> Any:
    return read(ParseDict({**VALID, "series": series}, QueryTrendRequest()), ASKED).needs


def test_a_number_beyond_doubles_is_missing(connection: duckdb.DuckDBPyConnection) -> None:
    events = [{"seq": seq, "t": 1_795_600_000_000_000, "name": "a", "user_id": "u", "anonymous_id": None,
               "props": {"n": 1e308}} for seq in (1, 2)]  # fmt: skip
    series = [{"measure": f"TREND_MEASURE_{name}", "property": "props.n"} for name in ("SUM", "MAXIMUM")]
    _, answer = ask(connection, ParseDict({**VALID, "series": series}, QueryTrendRequest()), events)
    total, maximum = answer.series
    assert not total.HasField("total")
    assert maximum.total == 1e308

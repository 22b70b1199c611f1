"""The answers of QueryTrend are those of its plain reading, and what a request may not ask is refused by name."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle.random_trends import trends
from oracle.source import make_src
from oracle.trend import expected_people, expected_trend

from nimbus.v1.people_pb2 import TrendCell
from nimbus.v1.trend_pb2 import QueryTrendRequest, QueryTrendResponse, TrendSeries
from nimbus_server.analyses.question import AsOf, Asked
from nimbus_server.analyses.trend.answer import Trend, read
from nimbus_server.errors import NimbusError, Reason

# NIMBUS_TEST_EXAMPLES=5000 looks longer.
EXAMPLES = int(os.environ.get("NIMBUS_TEST_EXAMPLES", "200"))
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


def rounded(lines: Any) -> list[Any]:
    """Lines that compare as equal where their numbers differ by a rounding."""

    def number(message: Any, name: str) -> Any:
        return pytest.approx(getattr(message, name), rel=1e-9, abs=1e-9) if message.HasField(name) else None

    return [
        (
            *(line.label, [*line.breakdown], [*line.unset], line.is_other, line.ignored, number(line, "total")),
            [(point.ts.ToMicroseconds(), number(point, "value")) for point in line.points],
        )
        for line in lines
    ]


@settings(max_examples=EXAMPLES, deadline=None)
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
    expected = expected_trend(request, ASKED.timezone, events)
    assert rounded(answer.series) == rounded(expected.series)
    assert rounded(answer.compared) == rounded(expected.compared)


@settings(max_examples=EXAMPLES // 2, deadline=None)
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

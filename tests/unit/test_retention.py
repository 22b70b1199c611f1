"""Retention: the answer to random questions over random logs is what the plain reading of them says."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.retention import HOUR, Cohort, retention
from oracle.source import make_src, uid_of

from nimbus.v1.people_pb2 import RetentionCell
from nimbus.v1.retention_pb2 import QueryRetentionRequest, QueryRetentionResponse
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.analyses.retention.answer import Retention, read
from nimbus_server.clock import micros, moment

# Random questions that are compared: thousands with CASES=5000 in the environment.
CASES = int(os.environ.get("CASES", "150"))
# A zone, and a day near which its clock does something.
CLOCKS = [
    ("UTC", "2025-05-30"),
    ("Europe/Berlin", "2025-03-28"),
    ("Europe/Berlin", "2025-10-24"),
    ("America/New_York", "2025-11-01"),
    ("America/Santiago", "2024-09-06"),  # leaps over midnight
    ("America/St_Johns", "2010-11-05"),  # goes back over midnight
    ("Asia/Kathmandu", "2024-02-27"),
    ("Pacific/Apia", "2011-12-28"),  # leaves out the 30th
    ("Australia/Lord_Howe", "2025-04-04"),  # by half an hour
]
PEOPLE = st.sampled_from([("u", None), ("u", "x"), ("v", None), ("v", "x"), (None, "x"), (None, "y"), (None, None)])
VALUES = st.sampled_from([None, 1, 2, 2.5, -3, "2", "text", True])
SELECTORS = st.sampled_from(
    [
        {},
        {"names": ["a"]},
        {"names": ["a", "b"]},
        {"names": ["b"]},
        {"names": ["$c", "a"]},
        {"filter": {"condition": {"property": "props.n", "operator": "CONDITION_OPERATOR_GREATER", "values": [1]}}},
    ]
)
MEASURES = [
    *[(name, "") for name in ("EVENTS", "PEOPLE", "EVENTS_PER_PERSON")],
    *[
        (name, "props.n")
        for name in ("SUM", "AVERAGE", "MINIMUM", "MAXIMUM", "MEDIAN", "P90", "P95", "P99", "DISTINCT")
    ],
]


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], datetime]:
    """A request, a log, and the moment of the answer."""
    zone, day = draw(st.sampled_from(CLOCKS))
    unit = draw(st.sampled_from(["HOUR", "DAY", "DAY", "WEEK", "MONTH"]))
    hours = {"HOUR": 12, "DAY": 7 * 24, "WEEK": 21 * 24, "MONTH": 70 * 24}[unit]
    base = micros(datetime.fromisoformat(f"{day}T00:00:00Z"))
    half_hours = st.builds(
        lambda halves, away: base + halves * HOUR // 2 + away,
        st.integers(-hours // 2, 4 * hours),
        st.sampled_from([0, 0, 0, 0, 1, -1, 60_000_000]),
    )
    start = draw(half_hours)
    end = draw(st.integers(1, 2 * hours)) * HOUR // 2 + start
    request: dict[str, Any] = {
        "range": {"start": moment(start).isoformat(), "end": moment(end).isoformat()},
        "timezone": zone,
        "start": draw(SELECTORS),
        "return": draw(SELECTORS),
        "unit": f"RETENTION_UNIT_{unit}",
        "cohort_by": draw(st.integers(0, 3)),
        "alignment": draw(st.integers(0, 2)),
        "mean": draw(st.integers(0, 2)),
        "week_start": draw(st.integers(0, 3)),
    }
    kind = draw(st.sampled_from(["periods", "periods", "brackets", "measure", "many"]))
    if kind == "brackets":
        edges = sorted(draw(st.sets(st.integers(0, 9), min_size=2, max_size=6)))
        request["brackets"] = [
            {"first": first, "last": last} for first, last in zip(edges[::2], edges[1::2], strict=False)
        ]
    else:
        request["periods"] = draw(st.integers(61, 70) if kind == "many" else st.integers(0, 5))
    if kind in {"periods", "many"}:
        request["counting"] = draw(st.integers(0, 3))
    if kind == "measure" or (draw(st.integers(0, 5)) == 0 and request.get("counting", 0) < 2):
        measure, path = draw(st.sampled_from(MEASURES))
        request |= {"measure": f"TREND_MEASURE_{measure}", "property": path}
    times = [*draw(st.lists(half_hours, max_size=4)), start, end, end - 1]
    event = st.builds(
        lambda t, name, person, value: {
            "t": t,
            "name": name,
            "user_id": person[0],
            "anonymous_id": person[1],
            "props": {} if value is None else {"n": value},
        },
        half_hours | st.sampled_from(times),
        st.sampled_from(["a", "a", "b", "$c"]),
        PEOPLE,
        VALUES,
    )
    log = [{"seq": seq, **one} for seq, one in enumerate(draw(st.lists(event, max_size=25)), 1)]
    return request, log, moment(draw(half_hours))


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connected:
        yield connected


def read_events(connection: duckdb.DuckDBPyConnection, question: Retention, events: list[dict[str, Any]]) -> None:
    """Make `src` of what the question needs, and nothing else."""
    needs = question.needs
    needed = [
        event
        for event in events
        if (needs.start is None or event["t"] >= needs.start)
        and (needs.end is None or event["t"] < needs.end)
        and (needs.names is None or event["name"] in needs.names)
    ]
    make_src(connection, needed, needs.properties)


def ask(
    connection: duckdb.DuckDBPyConnection, request: dict[str, Any], events: list[dict[str, Any]], at: datetime
) -> tuple[QueryRetentionResponse, Retention, QueryRetentionRequest]:
    message = ParseDict(request, QueryRetentionRequest())
    question = read(message, Asked(at, "UTC"))
    read_events(connection, question, events)
    return question.answer(lambda sql: connection.execute(sql).fetchall(), AsOf(7, at)), question, message


def close(numbers: Any) -> Any:
    return pytest.approx(list(numbers), nan_ok=True, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=CASES)
@given(questions(), st.tuples(st.integers(0, 4), st.integers(0, 9), st.booleans()))
def test_answers_are_those_of_the_oracle(
    connection: duckdb.DuckDBPyConnection,
    asked: tuple[dict[str, Any], list[dict[str, Any]], datetime],
    which: tuple[int, int, bool],
) -> None:
    request, events, at = asked
    answer, question, message = ask(connection, request, events, at)
    cohorts, mean = retention(message, events, at)
    assert [micros(cohort.start.ToDatetime(UTC)) for cohort in answer.cohorts] == [cohort.start for cohort in cohorts]
    for got, expected in zip(answer.cohorts, cohorts, strict=True):
        assert got.size == len(expected.members)
        assert list(got.returned) == [len(people) for people in expected.returned]
        assert list(got.complete) == expected.complete
        assert list(got.values) == close(expected.values)
    assert list(answer.mean) == close(mean)
    check_people(connection, question, cohorts, which)


def check_people(
    connection: duckdb.DuckDBPyConnection, question: Retention, cohorts: list[Cohort], which: tuple[int, int, bool]
) -> None:
    """The people behind a cell are those that the oracle counts."""
    cohort = cohorts[which[0] % len(cohorts)]
    cell = RetentionCell(dropped=which[2])
    cell.start.FromDatetime(moment(cohort.start))
    expected = cohort.members
    if which[1] or cell.dropped:
        cell.period = which[1] % len(cohort.returned)
        expected = cohort.returned[cell.period]
    if cell.dropped:
        expected = cohort.members - expected
    assert people(connection, question, cell) == expected


def people(connection: duckdb.DuckDBPyConnection, question: Retention, cell: RetentionCell) -> set[str]:
    names = {uid_of(name): name for name in "uvxy"}
    uids = [uid for (uid,) in connection.execute(question.people(cell)).fetchall()]
    assert len(uids) == len(set(uids))
    return {names[uid] for uid in uids}

"""Retention: the answer to random questions over random logs is what the plain reading of them says."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.agreement import check_retention
from oracle.examples import examples
from oracle.random_retention import questions
from oracle.retention import Cohort, retention
from oracle.source import make_src, uid_of

from nimbus.v1.people_pb2 import RetentionCell
from nimbus.v1.retention_pb2 import QueryRetentionRequest, QueryRetentionResponse
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.analyses.retention.answer import Retention, read
from nimbus_server.clock import moment


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


@settings(deadline=None, max_examples=examples(150))
@given(questions(), st.tuples(st.integers(0, 4), st.integers(0, 9), st.booleans()))
def test_answers_are_those_of_the_oracle(
    connection: duckdb.DuckDBPyConnection,
    asked: tuple[dict[str, Any], list[dict[str, Any]], datetime],
    which: tuple[int, int, bool],
) -> None:
    request, events, at = asked
    answer, question, message = ask(connection, request, events, at)
    check_retention(answer, message, events, at)
    cohorts, _ = retention(message, events, at)
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

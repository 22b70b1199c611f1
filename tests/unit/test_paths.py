"""Paths are those of a plain reading of the log: one person at a time."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import paths as oracle
from oracle.source import make_src, uid_of

from nimbus.v1.paths_pb2 import QueryPathsRequest, QueryPathsResponse
from nimbus.v1.people_pb2 import PathCell
from nimbus_server.analyses.paths.answer import Paths, read
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.clock import MINUTE, SECOND, micros
from nimbus_server.errors import NimbusError, Reason

# Random logs that are compared: thousands with CASES=5000 in the environment.
CASES = int(os.environ.get("CASES", "100"))
START = datetime(2025, 3, 29, tzinfo=UTC)
ASKED = Asked(datetime(2025, 4, 1, tzinfo=UTC), "UTC")
AS_OF = AsOf(77, ASKED.now)
LIMITS = {"start": "2025-03-29T00:00:00Z", "end": "2025-03-29T12:00:00Z"}
HALF_A_DAY = 12 * 60 * MINUTE


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": "1"}) as connected:
        yield connected


def make(connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], question: Paths) -> None:
    """`src` with what the question needs, and nothing else."""
    needs = question.needs
    kept = [
        event
        for event in events
        if needs.start <= event["t"] < needs.end and (needs.names is None or event["name"] in needs.names)
    ]
    make_src(connection, kept, needs.properties)


def asking(connection: duckdb.DuckDBPyConnection) -> Any:
    return lambda statement: connection.execute(statement).fetchall()


def answer(connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], **fields: Any) -> QueryPathsResponse:
    request = ParseDict({"range": LIMITS, **fields}, QueryPathsRequest())
    question = read(request, ASKED)
    make(connection, events, question)
    return question.answer(asking(connection), AS_OF)


def log(*events: tuple[str, float], **fields: Any) -> list[dict[str, Any]]:
    """One person's events, by name and minute of the range."""
    at = micros(START)
    return [
        {"seq": seq, "t": at + int(minute * MINUTE), "name": name, "user_id": "ada", **fields}
        for seq, (name, minute) in enumerate(events, start=1)
    ]


def shown(response: QueryPathsResponse) -> list[tuple[int, str, str, int, int]]:
    return [(edge.step, getattr(edge, "from"), edge.to, edge.people, edge.paths) for edge in response.edges]


# Many ties, sessions that just hold and just do not, days apart, and both edges of the range.
TIMES = st.one_of(
    st.builds(
        lambda halves, seconds: micros(START) + halves * 30 * MINUTE + seconds * SECOND,
        st.integers(-4, 30),
        st.sampled_from([0, 0, 0, 1, -1]),
    ),
    st.integers(micros(START) - 3 * HALF_A_DAY, micros(START) + 4 * HALF_A_DAY),
)
NAMES = st.sampled_from(["a", "b", "c", "$own"])
EVENTS = (
    st.lists(
        st.fixed_dictionaries(
            {
                "t": TIMES,
                "name": NAMES,
                "user_id": st.sampled_from([None, "ada", "ada", "bob"]),
                "anonymous_id": st.sampled_from([None, "ada", "eve"]),
                "props": st.sampled_from(
                    [{}, {"page": "/"}, {"page": "/x"}, {"page": 5}, {"page": "5"}, {"page": [1]}]
                ),
            }
        ),
        max_size=18,
    )
    .flatmap(st.permutations)
    .map(lambda events: [{"seq": seq, **event} for seq, event in enumerate(events, start=1)])
)
HAS_PAGE = {"condition": {"property": "props.page", "operator": "CONDITION_OPERATOR_IS_SET"}}
SELECTORS = st.sampled_from(
    [{}, {}, {"names": ["a"]}, {"names": ["b", "c"]}, {"names": ["$own", "a"]}, {"filter": HAS_PAGE}]
)
REQUESTS = st.fixed_dictionaries(
    {"range": st.just(LIMITS), "anchor": SELECTORS},
    optional={
        "direction": st.sampled_from(["PATH_DIRECTION_AFTER", "PATH_DIRECTION_BEFORE"]),
        "steps": st.sampled_from([1, 2, 3, 4, 10]),
        "within": st.sampled_from(["1s", "30m", "1h", "1d", "2w"]),
        "collapse_repeats": st.booleans(),
        "node": st.sampled_from(["name", "props.page", "anonymous_id"]),
        "nodes": SELECTORS,
        "limit": st.integers(1, 3),
    },
).map(lambda fields: ParseDict(fields, QueryPathsRequest()))


@settings(max_examples=CASES, deadline=None)
@given(events=EVENTS, requests=st.lists(REQUESTS, min_size=2, max_size=3))
def test_paths_are_those_of_a_plain_reading(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], requests: list[QueryPathsRequest]
) -> None:
    for request in requests:
        question = read(request, ASKED)
        make(connection, events, question)
        response = question.answer(asking(connection), AS_OF)
        found = oracle.paths(events, request, micros(START), micros(START) + HALF_A_DAY)
        steps, limit = request.steps or 3, request.limit or 50
        edges, hidden = oracle.edges(found, steps, limit)
        assert shown(response) == [(step, f or "", to or "", *counts) for step, f, to, *counts in edges]
        assert [edge.is_other for edge in response.edges] == [source is None for _, source, *_ in edges]
        assert [(end.step, end.people, end.paths) for end in response.ends] == oracle.ends(found, steps)
        for edge in response.edges[-2:]:
            source, target = getattr(edge, "from"), edge.to
            rest = [(f, to) for step, f, to in hidden if step == edge.step]
            wanted = rest if edge.is_other else [(source, target)]
            cell = PathCell(step=edge.step, to=target, is_other=edge.is_other, **{"from": source})
            uids = asking(connection)(question.people(cell))
            assert sorted(uids) == sorted((uid_of(one),) for one in oracle.people(found, edge.step, wanted))


def test_every_anchor_begins_a_path_and_repeats_are_left_out(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), ("a", 1), ("b", 2), ("b", 3), ("a", 4))
    response = answer(connection, events, anchor={"names": ["a"]})
    assert shown(response) == [(1, "a", "b", 1, 2), (2, "b", "a", 1, 2)]
    assert [(end.step, end.people, end.paths) for end in response.ends] == [(0, 1, 1), (1, 0, 0), (2, 1, 2), (3, 0, 0)]
    whole = answer(connection, events, anchor={"names": ["a"]}, collapse_repeats=False, steps=2)
    assert shown(whole) == [(1, "a", "a", 1, 1), (1, "a", "b", 1, 1), (2, "a", "b", 1, 1), (2, "b", "b", 1, 1)]


def test_backwards_the_first_step_is_the_event_before(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("x", 0), ("b", 1), ("b", 2), ("a", 3), ("c", 4))
    response = answer(connection, events, anchor={"names": ["a"]}, direction="PATH_DIRECTION_BEFORE")
    assert shown(response) == [(1, "a", "b", 1, 1), (2, "b", "x", 1, 1)]


def test_a_session_goes_on_after_30_minutes_and_not_after_a_microsecond_more(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    events = log(("a", 0), ("b", 30), ("c", 60 + 1 / 60_000_000))
    assert shown(answer(connection, events, anchor={"names": ["a"]})) == [(1, "a", "b", 1, 1)]


def test_events_that_are_no_nodes_hold_a_session_together(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), ("$heartbeat", 20), ("x", 40), ("b", 60))
    asked = {"anchor": {"names": ["a"]}, "nodes": {"names": ["b"]}}
    assert shown(answer(connection, events, **asked)) == [(1, "a", "b", 1, 1)]


def test_a_path_goes_on_outside_the_range_and_begins_within(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", -1), ("a", 719), ("b", 721), ("a", 722))
    assert shown(answer(connection, events, anchor={"names": ["a"]})) == [(1, "a", "b", 1, 1), (2, "b", "a", 1, 1)]


def test_in_a_session_a_path_is_followed_for_a_day(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), *((f"$beat{n}", 30 * n) for n in range(1, 48)), ("b", 24 * 60), ("c", 24 * 60 + 1 / 60))
    assert shown(answer(connection, events, anchor={"names": ["a"]})) == [(1, "a", "b", 1, 1)]


def test_ends_and_semantics_say_what_was_asked(connection: duckdb.DuckDBPyConnection) -> None:
    response = answer(connection, [], anchor={}, preset="PRESET_MIXPANEL", node="props.page")
    assert [(end.step, end.people, end.paths) for end in response.ends] == [(step, 0, 0) for step in range(4)]
    assert (response.as_of_position, response.complete_through.ToDatetime(UTC)) == (77, ASKED.now)
    assert dict(response.semantics) == {
        "range": "2025-03-29T00:00:00Z/2025-03-29T12:00:00Z",
        "timezone": "UTC",
        "direction": "AFTER",
        "steps": "3",
        "within": "30d",
        "collapse_repeats": "true",
        "node": "props.page",
        "limit": "50",
    }


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"anchor": None}, Reason.FIELD_REQUIRED, "anchor"),
        ({"range": {}}, Reason.FIELD_REQUIRED, "range"),
        ({"steps": 11}, Reason.FIELD_INVALID, "steps"),
        ({"steps": -1}, Reason.FIELD_INVALID, "steps"),
        ({"limit": 501}, Reason.FIELD_INVALID, "limit"),
        ({"within": "1mo"}, Reason.FIELD_INVALID, "within"),
        ({"within": "367d"}, Reason.FIELD_INVALID, "within"),
        ({"node": "ts"}, Reason.FIELD_INVALID, "node"),
        ({"node": "person.plan"}, Reason.FIELD_INVALID, "node"),
        ({"direction": 7}, Reason.FIELD_INVALID, "direction"),
        ({"preset": 9}, Reason.FIELD_INVALID, "preset"),
        ({"timezone": "Mars/Olympus"}, Reason.FIELD_INVALID, "timezone"),
        ({"nodes": {"names": ["x" * 201]}}, Reason.FIELD_TOO_LONG, "nodes.names"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(fields: dict[str, Any], reason: Reason, field: str) -> None:
    request = ParseDict({"range": LIMITS, "anchor": {}, **fields}, QueryPathsRequest())
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read(request, ASKED)
    assert [violation.field for violation in failed.value.violations] == [field]


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        ({"step": 0}, "path_cell.step"),
        ({"step": 4}, "path_cell.step"),
        ({"step": 1, "to": "b", "is_other": True}, "path_cell.to"),
        ({"step": 1, "from": "\0"}, "path_cell.from"),
    ],
)
def test_a_cell_that_is_no_edge_is_refused(cell: dict[str, Any], field: str) -> None:
    question = read(ParseDict({"range": LIMITS, "anchor": {}}, QueryPathsRequest()), ASKED)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID) as failed:
        question.people(ParseDict(cell, PathCell()))
    assert [violation.field for violation in failed.value.violations] == [field]


def test_quotes_in_a_cell_are_text(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), ("b'; --", 1))
    request = ParseDict({"range": LIMITS, "anchor": {"names": ["a"]}}, QueryPathsRequest())
    question = read(request, ASKED)
    make(connection, events, question)
    for to, found in (("b'; --", [(uid_of("ada"),)]), ("b' OR 1=1 --", [])):
        assert asking(connection)(question.people(PathCell(step=1, to=to, **{"from": "a"}))) == found


def test_a_session_ends_with_a_repeat_too(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), ("b", 1), ("b", 2), ("c", 60))
    assert shown(answer(connection, events, anchor={"names": ["a"]})) == [(1, "a", "b", 1, 1)]


def test_a_repeat_after_an_event_that_is_no_node_is_one(connection: duckdb.DuckDBPyConnection) -> None:
    events = log(("a", 0), ("b", 1), ("$own", 2), ("b", 3))
    assert shown(answer(connection, events, anchor={"names": ["a"]})) == [(1, "a", "b", 1, 1)]

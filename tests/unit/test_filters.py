"""A filter as SQL chooses the events that the plain reading of it does, and its values are the event's."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.examples import examples
from oracle.filters import matches, number_of, text_of, value_of
from oracle.random_events import EVENTS, PATHS, SELECTORS, TIMES
from oracle.source import make_src

from nimbus.v1.question_pb2 import EventSelector
from nimbus_server.analyses.property import property_field
from nimbus_server.analyses.selector import read_selector


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connected:
        yield connected


@settings(max_examples=examples(60), deadline=None)
@given(events=EVENTS, selectors=st.lists(SELECTORS, min_size=1, max_size=6))
def test_a_selector_matches_what_it_plainly_says(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], selectors: list[EventSelector]
) -> None:
    read = [read_selector("selector", selector) for selector in selectors]
    make_src(connection, events, [prop for selector in read for prop in selector.properties])
    predicates = ", ".join(selector.predicate for selector in read)
    rows = connection.execute(f"SELECT {predicates} FROM src ORDER BY seq").fetchall()
    assert rows == [tuple(matches(selector, event) for selector in selectors) for event in events]


@settings(max_examples=examples(40), deadline=None)
@given(events=EVENTS, paths=st.lists(PATHS, min_size=1, max_size=5))
def test_a_property_has_the_value_of_the_event(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], paths: list[str]
) -> None:
    paths += ["name", "user_id", "anonymous_id"]
    properties = [property_field("property", path) for path in paths]
    make_src(connection, events, properties)
    columns = ", ".join(f"{p.text('e.')}, {p.number('e.')}, {p.is_set('e.')}" for p in properties)
    rows = connection.execute(f"SELECT {columns} FROM src e ORDER BY seq").fetchall()
    for row, event in zip(rows, events, strict=True):
        values = [value_of(path, event) for path in paths]
        expected = [(text_of(value), number_of(value), value is not None) for value in values]
        assert row == tuple(part for parts in expected for part in parts)


MISSING: dict[str, Any] = {"seq": 1, "t": 0, "name": "a", "props": {"null": None}}


@pytest.mark.parametrize("path", ["props.plan", "props.null", "props.null.inner", "context.plan", "user_id"])
@pytest.mark.parametrize(
    ("operator", "values", "holds"),
    [
        ("EQUALS", ["x"], False),
        ("NOT_EQUALS", ["x"], False),
        ("NOT_CONTAINS", ["x"], False),
        ("LESS", [1], False),
        ("AFTER", [TIMES[0]], False),
        ("IS_SET", [], False),
        ("IS_NOT_SET", [], True),
    ],
)
def test_what_is_missing_matches_is_not_set_alone_and_not_turns_that_round(
    connection: duckdb.DuckDBPyConnection, path: str, operator: str, values: list[Any], holds: bool
) -> None:
    condition = {"condition": {"property": path, "operator": f"CONDITION_OPERATOR_{operator}", "values": values}}
    assert ask(connection, condition, MISSING) is holds
    assert ask(connection, {"not": condition}, MISSING) is not holds


@pytest.mark.parametrize(
    ("value", "operator", "values", "holds"),
    [
        (5, "EQUALS", [5], True),
        (5, "EQUALS", ["5"], False),
        ("5", "EQUALS", [5], False),
        (5, "NOT_EQUALS", ["5"], True),
        (True, "EQUALS", [True], True),
        (True, "EQUALS", [1], False),
        (10**30, "GREATER", [1e29], True),
        ([1, "pro"], "EQUALS", ["pro"], True),
        ([1, "pro"], "NOT_EQUALS", ["pro"], True),
        (["pro"], "NOT_EQUALS", ["pro"], False),
        ([["pro"]], "EQUALS", ["pro"], False),
        ([], "NOT_EQUALS", ["pro"], False),
        ([None], "NOT_EQUALS", ["pro"], False),
        ([], "IS_SET", [], True),
        ({"a": 1}, "NOT_EQUALS", ["pro"], False),
        ([5, 20], "BETWEEN", [10, 15], False),
        ("Pro", "MATCHES", ["^p"], False),
        ("2024-02-29T12:00:00+01:00", "BEFORE", ["2024-02-29T11:00:00.000001Z"], True),
        ("2024-02-29T12:00:00+01:00", "BEFORE", ["2024-02-29T11:00:00Z"], False),
        ("2024-02-29T12:00:00.5Z", "AFTER", ["2024-02-29T12:00:00.499999Z"], True),
        ("2024-02-29T12:00:00.5Z", "BEFORE", ["2024-02-29T12:00:00.500001Z"], True),
        ("2024-02-29T12:00:60Z", "AFTER", ["2024-02-29T12:00:59.999999Z"], True),
        ("2024-02-29T12:00:60Z", "BEFORE", ["2024-02-29T12:01:00.000001Z"], True),
        *(("a.ä|'\n", operator, [*"bcdefghij", "a.ä|'\n"], True) for operator in ("EQUALS", "CONTAINS", "STARTS_WITH")),
        *(("axä", operator, [*"bcdefghij", "a.ä"], False) for operator in ("EQUALS", "CONTAINS", "STARTS_WITH")),
        ("yesterday", "BEFORE", ["2024-02-29T11:00:00Z"], False),
    ],
)
def test_values_are_compared_by_their_type_and_lists_by_their_items(
    connection: duckdb.DuckDBPyConnection, value: object, operator: str, values: list[Any], holds: bool
) -> None:
    condition = {"property": "props.p", "operator": f"CONDITION_OPERATOR_{operator}", "values": values}
    event = {**MISSING, "props": {"p": value}}
    assert ask(connection, {"condition": condition}, event) is holds


def ask(connection: duckdb.DuckDBPyConnection, given_filter: dict[str, Any], event: dict[str, Any]) -> bool:
    selector = ParseDict({"filter": given_filter}, EventSelector())
    read = read_selector("selector", selector)
    make_src(connection, [event], read.properties)
    ((holds,),) = connection.execute(f"SELECT {read.predicate} FROM src").fetchall()
    assert holds is matches(selector, event)
    return bool(holds)

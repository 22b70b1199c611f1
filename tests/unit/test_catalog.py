"""The catalog tells the names, properties and values that a plain count finds."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.agreement import check_event_names, check_properties, check_values
from oracle.catalog import read_by
from oracle.examples import examples
from oracle.random_events import EVENTS, PATHS
from oracle.source import make_src

from nimbus.v1.catalog_pb2 import (
    ListEventNamesRequest,
    ListPropertiesRequest,
    ListPropertyValuesRequest,
)
from nimbus_server.analyses.property import Property, property_field
from nimbus_server.analyses.question import Asked, AsOf, Needs
from nimbus_server.analyses.questions import check_letters, read_question
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason

NOW = datetime(2024, 3, 10, tzinfo=UTC)
ASKED = Asked(NOW, "UTC")
AS_OF = AsOf(7, NOW)
ALWAYS = Timestamp(seconds=0)
SEARCHES = st.sampled_from(["", "", "", "A", "plan", "'", ".", "%", "ro"])
LIMITS = st.sampled_from([0, 1, 3])
CALLS = {
    "ListEventNames": ListEventNamesRequest(),
    "ListProperties": ListPropertiesRequest(),
    "ListPropertyValues": ListPropertyValuesRequest(property="props.plan"),
}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connected:
        yield connected


def answer(connection: duckdb.DuckDBPyConnection, rpc: str, request: Message, events: Sequence[Any]) -> Any:
    question = read_question(rpc, request, ASKED)
    make_src(connection, read_by(question.needs, events), question.needs.properties)
    return question.answer(lambda sql: connection.execute(sql).fetchall(), AS_OF)


@settings(max_examples=examples(25), deadline=None)
@given(events=EVENTS, search=SEARCHES, limit=LIMITS)
def test_event_names_are_counted(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], search: str, limit: int
) -> None:
    request = ListEventNamesRequest(search=search, limit=limit)
    check_event_names(answer(connection, "ListEventNames", request, events), request, events)


@settings(max_examples=examples(30), deadline=None)
@given(events=EVENTS, search=SEARCHES, limit=LIMITS, names=st.sampled_from([[], ["a"], ["a", "b"]]))
def test_properties_are_counted_with_their_types(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], search: str, limit: int, names: list[str]
) -> None:
    request = ListPropertiesRequest(search=search, limit=limit, name=names, since=ALWAYS)
    found = answer(connection, "ListProperties", request, events)
    check_properties(found, request, events)
    assert all(property_field("property", info.property).path == info.property for info in found.properties)


@settings(max_examples=examples(30), deadline=None)
@given(events=EVENTS, path=PATHS | st.sampled_from(["name", "user_id"]), search=SEARCHES, limit=LIMITS)
def test_values_are_counted_as_text(
    connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]], path: str, search: str, limit: int
) -> None:
    request = ListPropertyValuesRequest(property=path, search=search, limit=limit, since=ALWAYS)
    check_values(answer(connection, "ListPropertyValues", request, events), request, events)


def test_properties_of_five_levels_are_found(connection: duckdb.DuckDBPyConnection) -> None:
    event = {"seq": 1, "t": 5, "name": "a", "props": {"a": {"b": {"c": {"d": {"e": 1}}}}}, "context": {}}
    found = answer(connection, "ListProperties", ListPropertiesRequest(since=ALWAYS), [event])
    assert [info.property for info in found.properties][-1] == "props.a.b.c.d.e"
    assert found.count == 5


def test_all_event_names_are_read_and_the_rest_of_the_last_30_days() -> None:
    needs = {rpc: read_question(rpc, request, ASKED).needs for rpc, request in CALLS.items()}
    since = micros(NOW - timedelta(days=30))
    assert [(needs[rpc].start, needs[rpc].end) for rpc in CALLS] == [(None, None), (since, None), (since, None)]
    assert needs["ListProperties"].documents


def test_paths_that_differ_in_the_case_of_letters_alone_are_refused(connection: duckdb.DuckDBPyConnection) -> None:
    plan, other = Property("props", ("plan",)), Property("props", ("Plan",))
    sql = f"SELECT {plan.column('s')} FROM (SELECT 'b' AS {other.column('s')}, 'a' AS {plan.column('s')})"
    assert connection.execute(sql).fetchall() == [("b",)]  # the reason
    with pytest.raises(NimbusError, check=lambda e: "props.Plan" in e.message) as failed:
        check_letters(Needs(None, None, None, frozenset({plan, other})))
    assert failed.value.reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    ("rpc", "fields", "reason", "field"),
    [
        ("ListEventNames", {"limit": 1001}, Reason.FIELD_INVALID, "limit"),
        ("ListEventNames", {"limit": -1}, Reason.FIELD_INVALID, "limit"),
        ("ListEventNames", {"search": "a\0"}, Reason.FIELD_INVALID, "search"),
        ("ListProperties", {"search": "a" * 501}, Reason.FIELD_TOO_LONG, "search"),
        ("ListProperties", {"name": [""]}, Reason.FIELD_REQUIRED, "name"),
        ("ListProperties", {"name": ["a"] * 101}, Reason.FIELD_TOO_LONG, "name"),
        ("ListProperties", {"since": Timestamp(seconds=-(10**12))}, Reason.FIELD_INVALID, "since"),
        ("ListPropertyValues", {"property": ""}, Reason.FIELD_REQUIRED, "property"),
        ("ListPropertyValues", {"property": "ts"}, Reason.FIELD_INVALID, "property"),
        ("ListPropertyValues", {"property": "person.plan"}, Reason.FIELD_INVALID, "property"),
    ],
)
def test_a_field_of_the_catalog_that_is_wrong_is_named(
    rpc: str, fields: dict[str, Any], reason: Reason, field: str
) -> None:
    request = type(CALLS[rpc])(**{"property": "props.a", **fields} if "Values" in rpc else fields)
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read_question(rpc, request, ASKED)
    assert failed.value.violations[0].field == field

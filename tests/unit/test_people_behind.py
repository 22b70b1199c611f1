"""Who is behind a number: page by page, and never behind one that the answer does not have."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from oracle.source import make_src, uid_of

from nimbus.v1.people_pb2 import ListPeopleBehindRequest, ListPeopleBehindResponse
from nimbus_server.analyses.people.page import page_token
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.analyses.questions import read_question
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason

PROJECT = "7f3c5a52-6f0e-4b1c-9a52-0c1a5a0e3d11"
NOW = datetime(2025, 7, 1, tzinfo=UTC)
PEOPLE = [f"person {number}" for number in range(25)]
QUESTION = {
    "range": {"start": "2025-06-02T00:00:00Z", "end": "2025-06-04T00:00:00Z"},
    "start": {"names": ["a"]},
    "return": {"names": ["b"]},
}
MONDAY = {"start": "2025-06-02T00:00:00Z"}


def event(person: str | None, name: str, ts: str, **more: Any) -> dict[str, Any]:
    at = micros(datetime.fromisoformat(ts))
    return {"seq": at, "t": at, "name": name, "user_id": person, "anonymous_id": None, **more}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A log in which all start on Monday and every other one returns on Tuesday, and somebody starts on Tuesday."""
    events = [event(person, "a", "2025-06-02T10:00Z") for person in PEOPLE]
    events += [event(person, "b", "2025-06-03T10:00Z") for person in PEOPLE[::2]]
    events += [event("tuesday", "a", "2025-06-03T10:00Z"), event(None, "a", "2025-06-02T10:00Z")]
    events.append(event(None, "a", "2025-06-02T10:00Z") | {"anonymous_id": "a browser"})
    with duckdb.connect(config={"threads": 1}) as connected:
        make_src(connected, events)
        yield connected


def ask(connection: duckdb.DuckDBPyConnection, **fields: Any) -> ListPeopleBehindResponse:
    request = ParseDict({"project_id": PROJECT, "retention": QUESTION, **fields}, ListPeopleBehindRequest())
    question = read_question("ListPeopleBehind", request, Asked(NOW, "UTC"))
    answer = question.answer(lambda sql: connection.execute(sql).fetchall(), AsOf(7, NOW))
    assert isinstance(answer, ListPeopleBehindResponse)
    return answer


def test_the_people_of_a_cohort_are_listed_by_what_they_are_known_by(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, retention_cell=MONDAY)
    assert sorted(person.id for person in answer.people) == sorted([*PEOPLE, "a browser"])
    assert (answer.count, answer.next_page_token, answer.as_of_position) == (26, "", 7)
    assert answer.complete_through.ToDatetime(UTC) == NOW
    assert answer.semantics["cohort_by"] == "FIRST_IN_RANGE"


@pytest.mark.parametrize("page_size", [1, 5, 12, 13, 14])
def test_pages_have_everybody_once_and_the_last_one_no_token(
    connection: duckdb.DuckDBPyConnection, page_size: int
) -> None:
    found: list[str] = []
    token, pages = "", 0
    while token or not pages:
        answer = ask(connection, retention_cell={**MONDAY, "period": 1}, page_size=page_size, page_token=token)
        assert answer.count == 13
        assert len(answer.people) <= page_size
        found += [person.id for person in answer.people]
        token, pages = answer.next_page_token, pages + 1
    assert found == sorted(PEOPLE[::2], key=lambda person: uid_of(person) or 0)
    assert pages == -(-13 // page_size)


def test_those_who_did_not_return_are_the_rest(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, retention_cell={**MONDAY, "period": 1, "dropped": True})
    assert sorted(person.id for person in answer.people) == sorted([*PEOPLE[1::2], "a browser"])


def test_behind_a_number_of_nobody_there_is_nobody(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, retention_cell={**MONDAY, "period": 5})
    assert (list(answer.people), answer.count, answer.next_page_token) == ([], 0, "")


def test_a_page_after_the_last_person_is_empty_and_still_counts(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, retention_cell=MONDAY, page_token=page_token(2**63 - 1))
    assert (list(answer.people), answer.count, answer.next_page_token) == ([], 26, "")


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"retention": None, "retention_cell": MONDAY}, "question", Reason.FIELD_REQUIRED),
        ({}, "retention_cell", Reason.FIELD_REQUIRED),
        ({"trend_cell": {}}, "trend_cell", Reason.FIELD_INVALID),
        ({"funnel_cell": {"step": 1}}, "funnel_cell", Reason.FIELD_INVALID),
        ({"path_cell": {"step": 1}}, "path_cell", Reason.FIELD_INVALID),
        ({"retention_cell": {"start": "2025-06-01T00:00:00Z"}}, "retention_cell.start", Reason.FIELD_INVALID),
        ({"retention_cell": {**MONDAY, "period": 8}}, "retention_cell.period", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "page_size": 1001}, "page_size", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "page_size": -1}, "page_size", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "page_token": "next"}, "page_token", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "page_token": "MSBPUiAx"}, "page_token", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "page_token": "é"}, "page_token", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "retention": {**QUESTION, "project_id": PROJECT[:-1] + "2"}},
         "retention.project_id", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "retention": {**QUESTION, "json_body": {"data": "e30="}}},
         "retention.json_body", Reason.FIELD_INVALID),
        ({"retention_cell": MONDAY, "retention": {}}, "retention.range", Reason.FIELD_REQUIRED),
        ({"retention_cell": MONDAY, "retention": {**QUESTION, "start": {"names": [""]}}},
         "retention.start.names", Reason.FIELD_REQUIRED),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    connection: duckdb.DuckDBPyConnection, fields: dict[str, Any], field: str, reason: Reason
) -> None:
    with pytest.raises(NimbusError) as caught:
        ask(connection, **fields)
    assert (caught.value.reason, [one.field for one in caught.value.violations]) == (reason, [field])
    assert caught.value.message.startswith(f"{field} ")
    assert caught.value.violations[0].message == caught.value.message


def test_the_project_of_the_question_may_be_said_again(connection: duckdb.DuckDBPyConnection) -> None:
    asked = {**QUESTION, "project_id": PROJECT.upper()}
    assert ask(connection, retention=asked, retention_cell=MONDAY).count == 26

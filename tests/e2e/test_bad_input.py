"""Whatever a route is sent, it does what it was asked or says that the client erred: never is it a fault of ours."""

import json
from urllib.parse import quote_from_bytes

import pytest
from bad_values import (
    WRONG_BODIES,
    WRONG_IDS,
    WRONG_JSON_VALUES,
    WRONG_QUERY_VALUES,
    body_with,
    check_answer,
    good_values,
)
from conftest import Account, Stack, new_account
from credentials import person
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import rest_failure
from surface import ROUTES, RPCS, Route
from transports import over_rest, send

from nimbus_server.errors import Reason

JSON = {"content-type": "application/json"}
WITH_BODY = [route for route in ROUTES if route.body_schema]
WITH_QUERY = [route for route in ROUTES if route.query]
WITH_ID = [route for route in ROUTES if "{" in route.path]
EVENT_FIELDS = ("name", "ts", "props", "properties", "user_id", "idempotency_key", "anonymous_id", "context")

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def someone(stack: Stack) -> Account:
    """Someone for calls that change nothing, or nothing that matters."""
    return new_account(stack)


def url_of(route: Route, account: Account) -> str:
    return route.filled(account.project_id)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_wrong_body_is_the_clients_error(stack: Stack, account: Account, route: Route) -> None:
    refused = 0
    for what, body in WRONG_BODIES.items():
        headers = {**JSON, **account.bearer}
        answer = send(stack, route.method, url_of(route, account), body, headers)
        check_answer(answer, (str(route), what))
        refused += answer.status >= 400
    check_answer(send(stack, route.method, url_of(route, account), None, account.bearer), (str(route), "no body"))
    # The one field of rotate-keys is optional: no body and no bytes are good.
    assert not route.body_schema or refused >= len(WRONG_BODIES) - 2


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_field_of_the_wrong_type_is_the_clients_error(stack: Stack, account: Account, route: Route) -> None:
    assert route.body_schema is not None
    for field, schema in route.body_schema["properties"].items():
        # The events in an array are refused one by one. Lists and messages may be empty.
        right = "[" if schema.get("type") == "array" else "{" if "$ref" in schema else ""
        for what, value in WRONG_JSON_VALUES.items():
            body = body_with(route, account, {field: value})
            answer = send(stack, route.method, url_of(route, account), body, {**JSON, **account.bearer})
            check_answer(answer, (str(route), field, what))
            if value[0] in "[{" and value[0] != right:
                assert answer.status == 400, (str(route), field, what)


@pytest.mark.parametrize("field", EVENT_FIELDS)
def test_a_wrong_field_of_an_event_refuses_that_event_alone(stack: Stack, someone: Account, field: str) -> None:
    events = [
        json.dumps({"name": "x", field: "@"}).replace('"@"', value)
        for what, value in WRONG_JSON_VALUES.items()
        # No parser takes these, so they take the whole request down: 400.
        if what not in {"a lone surrogate", "a number beyond doubles"}
    ]
    good = '{"name": "good"}'
    body = f'{{"project_id": "{someone.project_id}", "events": [{", ".join([good, *events, good])}]}}'.encode()
    response = over_rest(stack, RPCS["EventService.IngestEvents"], body, person(someone)).response
    assert response.accepted + response.rejected == len(events) + 2
    assert not {0, len(events) + 1} & {error.index for error in response.errors}
    assert {error.field for error in response.errors} <= {field, "props"}
    assert response.rejected >= 3


@pytest.mark.parametrize("what", ["a lone surrogate", "a number beyond doubles"])
def test_json_that_can_not_be_stored_is_refused_whole_or_by_event(stack: Stack, someone: Account, what: str) -> None:
    for field in EVENT_FIELDS:
        value = WRONG_JSON_VALUES[what]
        body = f'{{"project_id": "{someone.project_id}", "events": [{{"name": "x", "{field}": {value}}}]}}'.encode()
        answer = send(stack, "POST", "/v1/events", body, {**JSON, **someone.bearer})
        check_answer(answer, (field, what))
        assert answer.status == 400 or answer.json["rejected"] == 1


@pytest.mark.parametrize("route", WITH_QUERY, ids=str)
def test_a_wrong_query_is_the_clients_error(stack: Stack, someone: Account, route: Route) -> None:
    given_project = f"project_id={someone.project_id}&" if "project_id" in route.query else ""
    for name in route.query:
        start = "" if name == "project_id" else given_project
        for value in WRONG_QUERY_VALUES:
            for query in (
                f"{start}{name}={value}",
                f"{start}{name}={value}&{name}={value}",
                f"{start}{name}.x={value}",
            ):
                answer = send(stack, route.method, f"{route.path}?{query}", None, someone.bearer)
                check_answer(answer, (str(route), query[:200]))
    for query in ("nope=1", "&&", "=", "?", "%00=1", "json_body=1", "&".join(f"name={i}" for i in range(101))):
        answer = send(stack, route.method, f"{route.path}?{given_project}{query}", None, someone.bearer)
        check_answer(answer, (str(route), query[:200]))
        if query.startswith(("nope", "%00", "json")):
            assert answer.status == 400


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_parameter_that_a_route_does_not_have_is_refused(stack: Stack, someone: Account, route: Route) -> None:
    """What stands in the path or the body is no parameter, and the query of one call does not reach another's."""
    for name in {"nope", "json_body", "project_id", "consumer", "name", "email"} - {*route.query}:
        body = body_with(route, someone, {}) if route.body_schema else None
        target = f"{url_of(route, someone)}?{name}={someone.project_id}"
        answer = send(stack, route.method, target, body, {**JSON, **someone.bearer})
        assert (answer.status, rest_failure(answer).reason) == (400, Reason.FIELD_UNKNOWN), (target, answer)


def test_a_query_does_not_say_what_is_deleted(stack: Stack, account: Account) -> None:
    created = send(stack, "POST", "/v1/projects", b'{"name": "x"}', {**JSON, **account.bearer})
    projects = [f"/v1/projects/{created.json['project']['id']}", f"/v1/projects/{account.project_id}"]
    assert send(stack, "DELETE", f"{projects[0]}?project_id={account.project_id}", None, account.bearer).status == 400
    assert [send(stack, "GET", project, None, account.bearer).status for project in projects] == [200, 200]


@pytest.mark.parametrize("position", ["1_0", "\u0663", "+1", " 1", "1.5", ""])
def test_a_number_as_text_is_digits(stack: Stack, someone: Account, position: str) -> None:
    target = f"/v1/projects/{someone.project_id}/consumers/x/ack"
    body = json.dumps({"position": position}).encode()
    answer = send(stack, "POST", target, body, {**JSON, **someone.bearer})
    assert (answer.status, rest_failure(answer).reason) == (400, Reason.FIELD_INVALID)


@pytest.mark.parametrize("route", WITH_ID, ids=str)
def test_a_wrong_id_in_the_path_is_the_clients_error(stack: Stack, someone: Account, route: Route) -> None:
    good = good_values(someone, route)
    fields = {name: good[name] for name in route.body_schema["properties"]} if route.body_schema else None
    for wrong in WRONG_IDS:
        body = json.dumps(fields).encode() if fields else None
        answer = send(stack, route.method, route.filled(wrong), body, {**JSON, **someone.bearer})
        check_answer(answer, (str(route), wrong[:100]))
        assert answer.status in {400, 404}


@pytest.mark.parametrize("route", WITH_ID, ids=str)
def test_someone_elses_id_in_the_path_is_not_found(stack: Stack, someone: Account, route: Route) -> None:
    theirs = new_account(stack).project_id
    body = body_with(route, someone, {}) if route.body_schema else None
    answer = send(stack, route.method, route.filled(theirs), body, {**JSON, **someone.bearer})
    check_answer(answer, str(route))
    assert answer.status == 404


@quick
@given(st.data())
def test_no_json_body_is_our_fault(stack: Stack, someone: Account, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(WITH_BODY))
    assert route.body_schema is not None
    known = st.sampled_from(sorted(route.body_schema["properties"]))
    body = json.dumps(data.draw(anything | st.dictionaries(known, anything))).encode()
    answer = send(stack, route.method, url_of(route, someone), body, {**JSON, **someone.bearer})
    check_answer(answer, (str(route), body))


@quick
@given(st.data())
def test_no_event_is_our_fault(stack: Stack, someone: Account, data: st.DataObject) -> None:
    known = st.dictionaries(st.sampled_from(EVENT_FIELDS), anything)
    events = data.draw(st.lists(known | anything, min_size=1, max_size=5))
    body = json.dumps({"project_id": someone.project_id, "events": events}).encode()
    answer = send(stack, "POST", "/v1/events", body, {**JSON, **someone.bearer})
    check_answer(answer, body)


@quick
@given(st.data())
def test_no_query_is_our_fault(stack: Stack, someone: Account, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(WITH_QUERY))
    values = st.binary(max_size=40).map(quote_from_bytes) | st.sampled_from(WRONG_QUERY_VALUES)
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(route.query), values), max_size=4))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    answer = send(stack, route.method, f"{route.path}?project_id={someone.project_id}&{query}", None, someone.bearer)
    check_answer(answer, (str(route), query[:300]))

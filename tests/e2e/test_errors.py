"""Every reason for which a call can fail is really provoked, and looks as documented over REST and over gRPC."""

import json
import math
from collections.abc import Iterator

import pytest
from broken_stack import BROKEN, ENVIRONMENT, list_projects, locked, without_table
from conftest import Account, Stack, new_account, own_stack
from consumer_recipes import CONSUMER_RECIPES
from credentials import machine, person
from error_recipes import RECIPES, World
from google.rpc.code_pb2 import RESOURCE_EXHAUSTED, UNIMPLEMENTED
from outcomes import Outcome
from surface import RPCS
from transports import Transport, over_edge_grpc, over_native_grpc, over_rest

from nimbus_server.errors import Reason
from nimbus_server.rpc.status import TABLE

# Provoked on a stack that limits rates, by test_configured_edge.py.
ELSEWHERE = {Reason.RATE_LIMITED}
WAITING_HELPS = {
    Reason.CONSUMER_BUSY,
    Reason.RATE_LIMITED,
    Reason.OVERLOADED,
    Reason.STORAGE_UNAVAILABLE,
    Reason.WORKER_UNAVAILABLE,
    Reason.ANALYST_UNAVAILABLE,
}
# Protobuf skips fields that it does not know; the other two are found out before a message is there to speak of.
NOT_OVER_GRPC = {Reason.FIELD_UNKNOWN, Reason.ROUTE_NOT_FOUND, Reason.BODY_TOO_LARGE}
INTERNALS = ("Traceback", "psycopg", "SELECT", "members", 'File "')


@pytest.fixture(scope="module")
def own() -> Iterator[World]:
    """A stack to break, with one worker and little patience."""
    with own_stack({**ENVIRONMENT, "NIMBUS_WORKERS": "1"}) as stack:
        yield World(stack, new_account(stack))


def check(outcome: Outcome, reason: Reason, violations: tuple[str, ...] = ()) -> None:
    failure = outcome.failure
    assert failure is not None
    assert failure.reason == reason, failure
    assert failure.code == TABLE[reason].code.value[0]
    assert failure.message
    assert failure.violations == violations
    assert (failure.retry_seconds is not None) == (reason in WAITING_HELPS)
    assert outcome.request_id
    assert not [word for word in INTERNALS if word in failure.message]
    if outcome.answer:
        assert outcome.answer.status == TABLE[reason].http
        waited = None if failure.retry_seconds is None else str(math.ceil(failure.retry_seconds))
        assert failure.retry_after == waited
        assert not [word for word in INTERNALS if word.encode() in outcome.answer.body]


def test_each_reason_of_a_call_has_a_recipe() -> None:
    assert RECIPES.keys() | BROKEN.keys() | CONSUMER_RECIPES.keys() | ELSEWHERE == {
        r for r in Reason if TABLE[r].http is not None
    }


@pytest.mark.parametrize("reason", RECIPES)
def test_rest_says_why_a_call_fails(stack: Stack, account: Account, reason: Reason) -> None:
    recipe = RECIPES[reason]
    check(recipe.follow(over_rest, World(stack, account)), reason, recipe.violations)


@pytest.mark.parametrize("transport", [over_native_grpc, over_edge_grpc])
@pytest.mark.parametrize("reason", [r for r in RECIPES if r not in NOT_OVER_GRPC])
def test_grpc_says_the_same(stack: Stack, account: Account, reason: Reason, transport: Transport) -> None:
    recipe = RECIPES[reason]
    check(recipe.follow(transport, World(stack, account)), reason, recipe.violations)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("reason", CONSUMER_RECIPES)
def test_one_of_two_streams_of_a_consumer_is_told_why(
    stack: Stack, account: Account, reason: Reason, edge: bool
) -> None:
    check(CONSUMER_RECIPES[reason](stack.edge_target if edge else stack.grpc_target, account), reason)


@pytest.mark.parametrize("transport", [over_native_grpc, over_edge_grpc])
def test_what_no_handler_sees_has_a_grpc_code(stack: Stack, account: Account, transport: Transport) -> None:
    codes = {Reason.ROUTE_NOT_FOUND: UNIMPLEMENTED, Reason.BODY_TOO_LARGE: RESOURCE_EXHAUSTED}
    for reason, code in codes.items():
        failure = RECIPES[reason].follow(transport, World(stack, account)).failure
        assert failure is not None
        assert failure.code == code


# A dead worker is the edge's to tell; over the native port, logins that wait would wait for longer than a test may.
WAYS_TO_BREAK = [(reason, over_rest) for reason in BROKEN] + [(reason, over_edge_grpc) for reason in BROKEN]
WAYS_TO_BREAK += [(r, over_native_grpc) for r in BROKEN if r not in {Reason.WORKER_UNAVAILABLE, Reason.OVERLOADED}]


@pytest.mark.parametrize(("reason", "transport"), WAYS_TO_BREAK)
def test_a_broken_stack_says_what_is_wrong(own: World, reason: Reason, transport: Transport) -> None:
    check(BROKEN[reason](transport, own.stack, own.account), reason)
    assert list_projects(transport, own.stack, own.account).failure is None, "it did not mend"


@pytest.mark.parametrize("transport", [over_rest, over_edge_grpc])
def test_a_call_that_takes_too_long_is_ended_by_the_edge(own: World, transport: Transport) -> None:
    fields = {"project_id": own.account.project_id}
    with locked(own.stack, "events"):
        outcome = transport(own.stack, RPCS["EventService.ListEvents"], fields, person(own.account))
    check(outcome, Reason.DEADLINE_EXCEEDED)


def test_ingest_says_why_it_takes_so_long_before_the_edge_ends_it(own: World) -> None:
    events = {"project_id": own.account.project_id, "events": [{"name": "late"}]}
    with locked(own.stack, "streams"):
        outcome = over_rest(own.stack, RPCS["EventService.IngestEvents"], events, person(own.account))
    check(outcome, Reason.STORAGE_UNAVAILABLE)


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc])
def test_a_defect_is_in_the_log_under_its_request_id_and_nowhere_else(own: World, transport: Transport) -> None:
    with without_table(own.stack, "members"):
        outcome = list_projects(transport, own.stack, own.account)
    check(outcome, Reason.INTERNAL)
    assert outcome.failure is not None
    assert outcome.failure.metadata == {"request_id": outcome.request_id}
    lines = [json.loads(line) for line in own.stack.log("worker-0").splitlines() if line.startswith("{")]
    (defect,) = (line for line in lines if line["event"] == "defect" and line["request_id"] == outcome.request_id)
    assert 'relation "members" does not exist' in json.dumps(defect["exception"]).replace('\\"', '"')
    assert [line["code"] for line in lines if line["event"] == "call" and line["request_id"] == outcome.request_id] == [
        "INTERNAL"
    ]


def test_a_stale_signature_is_told_the_time(stack: Stack, account: Account) -> None:
    failure = RECIPES[Reason.SIGNATURE_STALE].follow(over_rest, World(stack, account)).failure
    assert failure is not None
    assert int(failure.metadata["server_time"]) > 1_700_000_000


REFUSED = [
    ({"ts": "2026-01-01T00:00:00Z"}, "name", Reason.FIELD_REQUIRED),
    ({"name": "x\0"}, "name", Reason.FIELD_INVALID),
    ({"name": "x", "user_id": "u" * 201}, "user_id", Reason.FIELD_TOO_LONG),
    ({"name": "x", "ts": "1999-12-31T23:59:59Z"}, "ts", Reason.TS_OUT_OF_RANGE),
    ({"name": "x", "props": json.loads('{"a":' * 21 + "1" + "}" * 21)}, "props", Reason.PROPS_TOO_DEEP),
    ({"name": "x", "context": json.loads('{"a":' * 21 + "1" + "}" * 21)}, "context", Reason.PROPS_TOO_DEEP),
    ({"name": "x", "context": {"long": "x" * 32_768}}, "context", Reason.FIELD_TOO_LONG),
    ({"name": "x", "anonymous_id": ""}, "anonymous_id", Reason.FIELD_INVALID),
    ({"name": "x", "props": {"long": "x" * 32_768}}, "props", Reason.FIELD_TOO_LONG),
]


def test_each_reason_of_an_event_has_a_recipe() -> None:
    assert {reason for _, _, reason in REFUSED} >= {r for r in Reason if TABLE[r].http is None}


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc])
def test_a_refused_event_is_told_by_index_field_and_reason(
    stack: Stack, account: Account, transport: Transport
) -> None:
    events = [{"name": "good"}, *(event for event, _, _ in REFUSED)]
    fields = {"project_id": account.project_id, "events": events}
    response = transport(stack, RPCS["EventService.IngestEvents"], fields, machine(account)).response
    assert (response.accepted, response.rejected) == (1, len(REFUSED))
    told = [(error.index, error.field, error.reason) for error in response.errors]
    assert told == [(index, field, reason) for index, (_, field, reason) in enumerate(REFUSED, 1)]
    assert all(error.message for error in response.errors)


def test_a_field_that_events_do_not_have_refuses_the_event(stack: Stack, account: Account) -> None:
    body = json.dumps({"project_id": account.project_id, "events": [{"name": "good"}, {"name": "x", "nmae": 1}]})
    response = over_rest(stack, RPCS["EventService.IngestEvents"], body.encode(), machine(account)).response
    assert [(e.index, e.field, e.reason) for e in response.errors] == [(1, "nmae", Reason.FIELD_UNKNOWN)]
    assert response.accepted == 1

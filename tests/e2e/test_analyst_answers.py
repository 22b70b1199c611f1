"""Workers pass questions on to the analyst, and its answers hold every event that was acknowledged before."""

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from asking import ask, until_it_answers
from conftest import Account, Stack, new_account, own_stack
from credentials import machine, person
from surface import RPCS
from transports import Transport, encoded, over_edge_grpc, over_native_grpc, over_rest

from nimbus_server.errors import Reason

WAYS = [over_rest, over_native_grpc, over_edge_grpc]
ALL = {"range": {"last": "1d"}, "series": [{}]}


def ingest(stack: Stack, account: Account, *events: dict[str, object]) -> int:
    """Store events, and return the position of the last."""
    fields = {"project_id": account.project_id, "events": events, "return_receipts": True}
    response = over_native_grpc(stack, RPCS["EventService.IngestEvents"], fields, machine(account)).response
    assert response.accepted == len(events)
    return int(response.receipts[-1].seq)


@pytest.mark.parametrize("transport", WAYS)
def test_an_answer_holds_the_event_acknowledged_just_before(
    stack: Stack, account: Account, transport: Transport
) -> None:
    until_it_answers(stack, account)
    for n in range(1, 11):
        position = ingest(stack, account, {"name": "seen", "user_id": f"u{n}"})
        response = ask(stack, account, "ListEventNames", transport).response
        assert response.as_of_position == position
        assert [(info.name, info.events) for info in response.names] == [("seen", n)]


@pytest.mark.parametrize("transport", WAYS)
def test_a_question_waits_until_the_log_has_reached_min_position(
    stack: Stack, account: Account, transport: Transport
) -> None:
    until_it_answers(stack, account)
    position = ingest(stack, account, {"name": "first"})
    answered: list[object] = []

    def wait() -> None:
        answered.append(ask(stack, account, "QueryTrend", transport, min_position=position + 2, **ALL))

    asker = threading.Thread(target=wait)
    asker.start()
    ingest(stack, account, {"name": "second"})
    asker.join(0.5)
    assert not answered, answered
    ingest(stack, account, {"name": "third"})
    asker.join(10)
    (outcome,) = answered
    assert outcome.failure is None
    assert outcome.response.as_of_position == position + 2
    assert outcome.response.series[0].total == 3


def test_a_question_about_a_position_that_does_not_come_ends_with_its_deadline(stack: Stack, account: Account) -> None:
    until_it_answers(stack, account)
    rpc = RPCS["AnalysisService.QueryTrend"]
    body = encoded(rpc, {"project_id": account.project_id, "min_position": 1000, **ALL})
    started = time.monotonic()
    with grpc.insecure_channel(stack.grpc_target) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(rpc.wire)(
            body, timeout=0.5, metadata=tuple(person(account)("POST", rpc.wire, body).items())
        )
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 1


KEYS = ["it's", 'a "quoted" key', "back\\slash", "a.b", "'] FROM read_text('/etc/passwd') --", "0", "ключ", "a/b~c$*"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("exported", [False, True])
def test_a_key_is_a_key_whatever_it_means_in_sql_or_json_paths(
    stack: Stack, account: Account, key: str, exported: bool
) -> None:
    ingest(stack, account, {"name": "n", "props": {key: "x", "0": ["y"]} if key != "0" else {key: "x"}})
    path = "props." + key.replace("\\", "\\\\").replace(".", "\\.")
    outcome = ask(stack, account, "ListPropertyValues", property=path, search="x")
    assert outcome.failure is None, outcome.failure
    assert [(info.value, info.events) for info in outcome.response.values] == [("x", 1)]


@pytest.mark.parametrize("text", ["'", "' OR '1' = '1", "'; DROP TABLE tail; --", '"', "%", "_", "\\"])
def test_a_text_to_look_for_is_a_text(stack: Stack, account: Account, text: str) -> None:
    ingest(stack, account, {"name": f"<{text}>"}, {"name": "other"})
    outcome = ask(stack, account, "ListEventNames", search=text)
    assert [info.name for info in outcome.response.names] == [f"<{text}>"]
    values = ask(stack, account, "ListPropertyValues", property="name", name=[f"<{text}>"])
    assert [info.value for info in values.response.values] == [f"<{text}>"]


def test_a_list_has_no_keys(stack: Stack, account: Account) -> None:
    ingest(stack, account, {"name": "n", "props": {"list": ["zero"], "object": {"0": "zero"}}})
    for path, values in (("props.list.0", []), ("props.object.0", ["zero"])):
        response = ask(stack, account, "ListPropertyValues", property=path).response
        assert [info.value for info in response.values] == values


@pytest.mark.parametrize("transport", WAYS)
def test_a_question_within_another_is_about_the_same_project(
    stack: Stack, account: Account, transport: Transport
) -> None:
    other = new_account(stack)
    trend = {"project_id": other.project_id, **ALL}
    failure = ask(stack, account, "ListPeopleBehind", transport, trend=trend, trend_cell={}).failure
    assert failure is not None
    assert (failure.reason, failure.violations) == (Reason.FIELD_INVALID, ("trend.project_id",))


@pytest.fixture(scope="module")
def without() -> Iterator[Stack]:
    with own_stack({"NIMBUS_ANALYST": "false", "NIMBUS_WORKERS": "1"}) as stack:
        yield stack


@pytest.mark.parametrize("transport", WAYS)
def test_without_an_analyst_a_question_says_how_to_start_one(without: Stack, transport: Transport) -> None:
    account = new_account(without)
    failure = ask(without, account, "ListEventNames", transport).failure
    assert failure is not None
    assert failure.reason == Reason.ANALYST_UNAVAILABLE
    assert "nimbus analyst" in failure.message
    assert "NIMBUS_ANALYST_SOCKET" in failure.message
    assert not (without.data_dir / "run" / "analyst.sock").exists()


@pytest.mark.parametrize("pattern", ["a(", "(?=x)", "[z-a]", "*", "\\", "a{1001}", "(?P<n"])
def test_what_is_no_regular_expression_of_re2_is_refused(stack: Stack, account: Account, pattern: str) -> None:
    ingest(stack, account, {"name": "n", "props": {"text": "x"}})
    matches = {"property": "props.text", "operator": "CONDITION_OPERATOR_MATCHES", "values": [pattern]}
    series = [{"selector": {"filter": {"condition": matches}}}]
    failure = ask(stack, account, "QueryTrend", **{**ALL, "series": series}).failure
    assert failure is not None
    assert failure.reason == Reason.FIELD_INVALID, failure

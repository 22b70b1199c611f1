"""An analyst that is killed comes back, and nothing but the questions of that moment notices."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil
import psycopg
import pytest
from asking import answer, ask, fill, names, until_it_answers
from broken_stack import without
from conftest import Account, Stack, new_account, own_stack
from credentials import machine
from outcomes import Outcome
from surface import RPCS
from test_supervision import processes, wait_until
from transports import Transport, over_edge_grpc, over_native_grpc, over_rest

from nimbus_server.errors import Reason

ANALYST = "analyst.sock --data-dir"
# Fewer than the analyst exports at once, and more than it does soon.
EVENTS = 45_000
EXPORTED = "SELECT last_seq FROM segment_marks WHERE project_id = %s"


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    with own_stack({"NIMBUS_WORKERS": "1"}) as stack:
        yield stack


@pytest.fixture
def rich(own: Stack) -> Account:
    """Someone with a log that takes long to ask about."""
    account = new_account(own)
    until_it_answers(own, account)
    fill(own, account, EVENTS)
    return account


def send(stack: Stack, account: Account, count: int) -> int:
    """How many of so many events were accepted."""
    fields = {"project_id": account.project_id, "events": [{"name": "late"}] * count}
    return int(over_native_grpc(stack, RPCS["EventService.IngestEvents"], fields, machine(account)).response.accepted)


@pytest.mark.parametrize("transport", [over_rest, over_native_grpc, over_edge_grpc])
def test_a_question_whose_analyst_is_killed_fails_and_the_next_one_misses_nothing(
    own: Stack, rich: Account, transport: Transport
) -> None:
    outcomes: list[Outcome] = []
    asker = threading.Thread(target=lambda: outcomes.append(ask(own, rich, "ListProperties", transport)))
    (process,) = processes(own, ANALYST)
    used = process.cpu_times().user
    asker.start()
    wait_until(lambda: process.cpu_times().user > used + 0.1)
    assert not outcomes
    process.kill()
    asker.join(10)
    assert send(own, rich, 7) == 7
    (outcome,) = outcomes
    assert outcome.failure is not None
    assert outcome.failure.reason == Reason.ANALYST_UNAVAILABLE
    assert outcome.failure.retry_seconds
    until_it_answers(own, rich)
    counted = names(own, rich)
    assert counted.pop("late") == 7
    assert counted == {f"n{n}": EVENTS // 20 for n in range(20)}


def test_events_are_taken_while_there_is_no_analyst(own: Stack) -> None:
    account = new_account(own)
    with without(own, ANALYST):
        assert send(own, account, 5) == 5
        failure = ask(own, account, "ListEventNames").failure
        assert failure is not None
        assert failure.reason == Reason.ANALYST_UNAVAILABLE
        assert send(own, account, 5) == 5
    until_it_answers(own, account)
    assert names(own, account) == {"late": 10}


def test_connections_that_die_while_nobody_asks_fail_no_question(own: Stack) -> None:
    account = new_account(own)
    until_it_answers(own, account)
    send(own, account, 3)
    assert names(own, account) == {"late": 3}
    with psycopg.connect(own.dsn(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = 'nimbus' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    assert names(own, account) == {"late": 3}


def test_a_database_that_restarts_is_told_as_such_and_then_read_whole(own: Stack) -> None:
    account = new_account(own)
    until_it_answers(own, account)
    send(own, account, 3)
    (postgres,) = processes(own, "/bin/postgres -D")
    postgres.kill()
    postgres.wait(5)

    def answered() -> bool:
        failure = ask(own, account, "ListEventNames").failure
        assert failure is None or failure.reason == Reason.STORAGE_UNAVAILABLE, failure
        return failure is None

    wait_until(answered)
    assert names(own, account) == {"late": 3}


def test_answers_are_the_same_from_segments_and_from_the_log(own: Stack) -> None:
    account = new_account(own)
    until_it_answers(own, account)
    fill(own, account, 1_000)
    props = {
        "it's": "x",
        'a "b"': "x",
        "back\\slash": "x",
        "a.b": {"0": "x"},
        "'] --": "x",
        "list": ["x", 1.50, 123456789012345678901.10],
        "n": 1e2,
    }
    fields = {"project_id": account.project_id, "events": [{"name": "odd", "props": props, "user_id": "a"}]}
    over_native_grpc(own, RPCS["EventService.IngestEvents"], fields, machine(account))

    def answers() -> list[object]:
        found: list[object] = [answer(own, account, "ListProperties").properties, names(own, account)]
        paths = ["plan", "amount", "it's", 'a "b"', "back\\\\slash", "a\\.b.0", "a\\.b", "'] --", "list", "list.0", "n"]
        for path in paths:
            response = answer(own, account, "ListPropertyValues", property=f"props.{path}", limit=1000)
            found.append([(info.value, info.events) for info in response.values])
        return found

    from_log = answers()
    assert [("x", 1)] in from_log
    with psycopg.connect(own.dsn(), autocommit=True) as connection:
        project = (account.project_id,)
        assert connection.execute(EXPORTED, project).fetchone() in {None, (0,)}
        fill(own, account, 50_000)
        with_more = answers()
        wait_until(lambda: (connection.execute(EXPORTED, project).fetchone() or (0,))[0] == 51_001, 60)
    assert answers() == with_more
    assert from_log[4:] == with_more[4:]
    assert list((own.data_dir / "segments" / account.project_id).glob("*.parquet"))


def test_it_starts_again_beside_what_a_killed_one_left(own: Stack) -> None:
    account = new_account(own)
    (folder,) = (own.data_dir / "segments" / "tmp").glob("*/1")
    spilled = folder / "duckdb_temp_storage-0.tmp"
    spilled.write_bytes(b"left")
    (process,) = processes(own, ANALYST)
    process.kill()
    with suppress(psutil.TimeoutExpired):
        process.wait(5)
    wait_until(lambda: not spilled.exists())
    until_it_answers(own, account)

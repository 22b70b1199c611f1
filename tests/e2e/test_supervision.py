"""`nimbus up` keeps the stack running, whatever is killed, and leaves nothing behind when it stops."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests
from conftest import STOPS_AT_ONCE, Stack, new_account, own_stack

from nimbus_client import Event, Nimbus, NimbusError

BACK_SECONDS_MAX = 10.0


def wait_until(true: Callable[[], bool], seconds: float = BACK_SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def processes(stack: Stack, marker: str = "") -> list[psutil.Process]:
    """What the supervisor has started with `marker` in the command line; without one, all that comes of that as well.

    What PostgreSQL starts has its command line too, for a moment.
    """
    assert stack.process is not None
    children = psutil.Process(stack.process.pid).children(recursive=not marker)
    return [child for child in children if child.is_running() and marker in " ".join(child.cmdline())]


def answers(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.url}/readiness", timeout=2).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    with own_stack({}) as stack:
        yield stack


VICTIMS = {
    "a worker": "worker-0.sock",
    "Envoy": "envoy.yaml",
    "PostgreSQL": "/bin/postgres -D",
    "the analyst": "analyst.sock --data-dir",
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_what_is_killed_comes_back_and_no_acknowledged_event_is_lost(own: Stack, victim: str) -> None:
    account = new_account(own)
    acknowledged: list[str] = []
    stop = threading.Event()

    def send() -> None:
        key = {"project_id": account.project_id, "key_id": account.api_key_id, "secret": account.api_key_secret}
        with Nimbus(own.edge_target, **key) as nimbus:  # through Envoy, so that every part is on the way
            while not stop.is_set():
                batch = [Event("tick") for _ in range(3)]
                try:
                    receipt = nimbus.send(batch)
                except NimbusError:
                    continue
                assert receipt.accepted + receipt.duplicates == len(batch)
                acknowledged.extend(event.idempotency_key for event in batch)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wait_until(lambda: len(acknowledged) > 30)
        (process,) = processes(own, VICTIMS[victim])
        process.kill()
        process.wait(5)
        wait_until(lambda: answers(own) and bool(processes(own, VICTIMS[victim])))
        before = len(acknowledged)
        wait_until(lambda: len(acknowledged) > before + 30)
    finally:
        stop.set()
        sender.join()
    with psycopg.connect(own.dsn()) as connection:
        project = (account.project_id,)
        rows = connection.execute(
            "SELECT idempotency_key, seq FROM events WHERE project_id = %s ORDER BY seq", project
        ).fetchall()
        counted = connection.execute("SELECT sum(count) FROM event_counts WHERE project_id = %s", project).fetchone()
    assert set(acknowledged) <= {key for key, _ in rows}
    assert len({key for key, _ in rows}) == len(rows)
    assert [seq for _, seq in rows] == list(range(1, len(rows) + 1))
    assert counted is not None
    assert counted[0] == len(rows)


def test_a_stop_leaves_no_process_and_a_start_finds_everything_again(scratch: Path) -> None:
    stack = Stack(scratch / "data", STOPS_AT_ONCE).start()
    account = new_account(stack)
    try:
        for how in (signal.SIGINT, signal.SIGTERM):
            started = processes(stack)
            assert len(started) >= 4
            assert stack.stop(how) == 0
            psutil.wait_procs(started, timeout=5)
            assert not [process for process in started if process.is_running()]

            stack.start()
            assert "Made new secrets" not in "".join(stack.lines)
            projects = requests.get(f"{stack.url}/v1/projects", headers=account.bearer, timeout=10)
            assert [project["id"] for project in projects.json()["items"]] == [account.project_id]
    finally:
        stack.stop()


def test_a_killed_supervisor_takes_everything_with_it_and_the_next_one_starts(scratch: Path) -> None:
    stack = Stack(scratch / "data", STOPS_AT_ONCE).start()
    started = processes(stack)
    stack.stop(signal.SIGKILL)
    gone, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    assert len(gone) >= 4
    stack.start()
    assert stack.stop() == 0


def test_calls_in_flight_are_finished_before_it_stops(scratch: Path) -> None:
    stack = Stack(scratch / "data").start()
    account = new_account(stack)
    answered: list[int] = []
    with psycopg.connect(stack.dsn()) as blocker:
        blocker.execute("SELECT FROM streams FOR UPDATE")
        event = f'{{"project_id": "{account.project_id}", "events": [{{"name": "last"}}]}}'

        def call() -> None:
            answered.append(
                requests.post(f"{stack.url}/v1/events", data=event, headers=account.bearer, timeout=30).status_code
            )

        caller = threading.Thread(target=call)
        caller.start()
        with psycopg.connect(stack.dsn(), autocommit=True) as watcher:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: watcher.execute(waiting).fetchone() == (1,))
        assert stack.process is not None
        stack.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Stopping" in "".join(stack.lines))
        blocker.rollback()
    caller.join()
    assert answered == [200]
    assert stack.stop() == 0

"""How to provoke the reasons that need something out of order: each function breaks a stack, calls, and mends it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import psycopg
from conftest import Account, Stack
from credentials import nobody, person
from outcomes import Outcome
from psycopg import sql
from surface import RPCS
from transports import Transport, send

from nimbus_server.accounts.passwords import WAITING_MAX
from nimbus_server.errors import Reason

ENVIRONMENT = {
    "NIMBUS_REQUEST_TIMEOUT_SECONDS": "2",
    # A password takes a quarter of a second: many at once have to wait.
    "NIMBUS_BCRYPT_COST": "12",
}
CONDITION_SECONDS_MAX = 20.0


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CONDITION_SECONDS_MAX
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@contextmanager
def locked(stack: Stack, table: str) -> Iterator[None]:
    """Every statement that touches the table waits."""
    with psycopg.connect(stack.dsn()) as connection:
        connection.execute(sql.SQL("LOCK TABLE {}").format(sql.Identifier(table)))
        yield
        connection.rollback()


@contextmanager
def struck(stack: Stack, function: str) -> Iterator[None]:
    """The first statement of a worker that waits for a lock is ended by the PostgreSQL function."""

    def strike() -> None:
        find = sql.SQL(
            "SELECT {}(pid) FROM pg_stat_activity WHERE application_name = 'nimbus' AND wait_event_type = 'Lock'"
        ).format(sql.Identifier(function))
        with psycopg.connect(stack.dsn(), autocommit=True) as connection:
            wait_until(lambda: connection.execute(find).fetchone() is not None)

    thread = threading.Thread(target=strike)
    with locked(stack, "members"):
        thread.start()
        yield
        thread.join()


@contextmanager
def without_table(stack: Stack, table: str) -> Iterator[None]:
    """The table has another name, as after a migration gone wrong."""
    hidden = sql.Identifier(f"{table}_hidden")
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(table), hidden))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(hidden, sql.Identifier(table)))


@contextmanager
def without_worker(stack: Stack) -> Iterator[None]:
    """The only worker is dead, and the supervisor held so that it starts no other."""
    with without(stack, "worker-0.sock"):
        yield
    wait_until(lambda: send(stack, "GET", "/readiness").status == 200)


@contextmanager
def without(stack: Stack, marker: str) -> Iterator[None]:
    """What has `marker` in its command line is dead, and the supervisor held so that it does not start it again."""
    assert stack.process is not None
    supervisor = psutil.Process(stack.process.pid)
    (victim,) = (child for child in supervisor.children() if marker in " ".join(child.cmdline()))
    supervisor.suspend()
    try:
        # Before that it might still see the worker die.
        wait_until(lambda: supervisor.status() == psutil.STATUS_STOPPED)
        victim.kill()
        wait_until(lambda: victim.status() == psutil.STATUS_ZOMBIE)
        yield
    finally:
        supervisor.resume()


def list_projects(transport: Transport, stack: Stack, account: Account) -> Outcome:
    return transport(stack, RPCS["ProjectService.ListProjects"], {}, person(account))


def connection_lost(transport: Transport, stack: Stack, account: Account) -> Outcome:
    with struck(stack, "pg_terminate_backend"):
        return list_projects(transport, stack, account)


def statement_cancelled(transport: Transport, stack: Stack, account: Account) -> Outcome:
    with struck(stack, "pg_cancel_backend"):
        return list_projects(transport, stack, account)


def table_missing(transport: Transport, stack: Stack, account: Account) -> Outcome:
    with without_table(stack, "members"):
        return list_projects(transport, stack, account)


def worker_dead(transport: Transport, stack: Stack, _account: Account) -> Outcome:
    with without_worker(stack):
        return transport(stack, RPCS["HealthService.CheckLiveness"], {}, nobody)


def analyst_dead(transport: Transport, stack: Stack, account: Account) -> Outcome:
    fields = {"project_id": account.project_id}
    with without(stack, "analyst.sock --data-dir"):
        outcome = transport(stack, RPCS["AnalysisService.ListEventNames"], fields, person(account))
    wait_until(
        lambda: transport(stack, RPCS["AnalysisService.ListEventNames"], fields, person(account)).failure is None
    )
    return outcome


def many_logins(transport: Transport, stack: Stack, account: Account) -> Outcome:
    login = {"email": account.email, "password": "not the password"}
    count = WAITING_MAX + 14
    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(transport, stack, RPCS["AuthService.Login"], login) for _ in range(count)]
    failures = [call.result().failure for call in calls]
    reasons = {failure.reason for failure in failures}
    # Those that waited, and did not get their turn in time.
    assert reasons <= {Reason.OVERLOADED, Reason.DEADLINE_EXCEEDED, Reason.LOGIN_FAILED}, reasons
    return next(call.result() for call in calls if call.result().failure.reason == Reason.OVERLOADED)


BROKEN: dict[Reason, Callable[[Transport, Stack, Account], Outcome]] = {
    Reason.STORAGE_UNAVAILABLE: connection_lost,
    Reason.DEADLINE_EXCEEDED: statement_cancelled,
    Reason.INTERNAL: table_missing,
    Reason.WORKER_UNAVAILABLE: worker_dead,
    Reason.OVERLOADED: many_logins,
    Reason.ANALYST_UNAVAILABLE: analyst_dead,
}

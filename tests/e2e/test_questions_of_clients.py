"""The Python clients, `nimbus query` and `nimbus sql` ask the same Nimbus and get the same numbers."""

import csv
import io
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from asking import until_it_answers
from conftest import ENVIRONMENT, INTERRUPTIBLE, Account, Stack, new_account
from test_supervision import wait_until

from nimbus.v1.people_pb2 import FunnelCell
from nimbus_client import AsyncNimbus, Event, Nimbus, NimbusError, condition, not_, select, series
from nimbus_client.questions import funnel_request

SECONDS_MAX = 60
NOW = datetime.now(UTC).replace(microsecond=0)
HOSTILE = "'; DROP VIEW events; --\x1b[2J"


def day(ago: float) -> datetime:
    return NOW - timedelta(days=ago)


# Ada signs up and buys, Bob signs up, somebody without an account looks.
EVENTS = [
    Event("signup", user_id="ada", props={"plan": "pro"}, ts=day(3)),
    Event("purchase", user_id="ada", props={"amount": 12.5, "plan": "pro"}, ts=day(2)),
    Event("signup", user_id="bob", props={"plan": "free"}, ts=day(2)),
    Event("page_view", anonymous_id="a1", props={"page": HOSTILE, "big": 2**70}, ts=day(1)),
]


@pytest.fixture(scope="module")
def asked(stack: Stack) -> Account:
    account = new_account(stack)
    with _client(stack, account) as nimbus:
        assert nimbus.send(EVENTS).accepted == len(EVENTS)
    until_it_answers(stack, account)
    return account


@pytest.fixture
def nimbus(stack: Stack, asked: Account) -> Iterator[Nimbus]:
    with _client(stack, asked) as client:
        yield client


def _client(stack: Stack, account: Account) -> Nimbus:
    return Nimbus(
        stack.grpc_target,
        project_id=account.project_id,
        key_id=account.api_key_id,
        secret=account.api_key_secret,
    )


def run(stack: Stack, *arguments: str, given: str | None = None) -> tuple[int, str, str]:
    """What a command of `nimbus` says; `given` is its standard input."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    done = subprocess.run(
        [sys.executable, "-m", "nimbus_server", *arguments, "--data-dir", str(stack.data_dir)],
        env={**clean, **ENVIRONMENT},
        input=given,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_client_has_a_method_for_each_question(nimbus: Nimbus) -> None:
    trend = nimbus.trend(
        [series("signup", "PEOPLE"), series("purchase", "SUM", "props.amount")], last="7d", bucket="1d"
    )
    assert [line.total for line in trend.series] == [2, 12.5]
    funnel = nimbus.funnel(["signup", "purchase"], last="7d", within="2d")
    assert [step.count for step in funnel.steps] == [2, 1]
    retention = nimbus.retention("signup", "purchase", last="7d", periods=2)
    assert sum(cohort.size for cohort in retention.cohorts) == 2
    assert sum(cohort.returned[1] for cohort in retention.cohorts) == 1
    paths = nimbus.paths("signup", last="7d", within="2d", steps=1)
    assert [(edge.to, edge.people) for edge in paths.edges] == [("purchase", 1)]
    assert {info.name: info.events for info in nimbus.event_names().names} == {
        "signup": 2,
        "purchase": 1,
        "page_view": 1,
    }
    assert "props.plan" in {info.property for info in nimbus.properties(names="signup").properties}
    assert [info.value for info in nimbus.property_values("props.plan", names="signup").values] == ["free", "pro"]


def test_filters_are_made_in_a_line(nimbus: Nimbus) -> None:
    pro = condition("props.plan", "EQUALS", "pro")
    trend = nimbus.trend([select(where=pro), select(where=not_(pro))], last="7d")
    assert [line.total for line in trend.series] == [2, 2]


def test_the_people_behind_a_number_are_those_counted(nimbus: Nimbus, asked: Account) -> None:
    question = funnel_request(asked.project_id, ["signup", "purchase"], {"last": "7d", "within": "2d"})
    assert [person.id for person in nimbus.people_behind(question, FunnelCell(step=2)).people] == ["ada"]
    assert [person.id for person in nimbus.people_behind(question, FunnelCell(step=2, dropped=True)).people] == ["bob"]


async def test_the_asyncio_client_gives_the_same_answers(stack: Stack, asked: Account, nimbus: Nimbus) -> None:
    key = {"project_id": asked.project_id, "key_id": asked.api_key_id, "secret": asked.api_key_secret}
    async with AsyncNimbus(stack.grpc_target, **key) as aio:
        here, there = (
            nimbus.funnel(["signup", "purchase"], last="7d"),
            await aio.funnel(["signup", "purchase"], last="7d"),
        )
        assert list(there.steps) == list(here.steps)
        assert list((await aio.event_names()).names) == list(nimbus.event_names().names)
        assert (await aio.trend(["signup"], last="7d")).series[0].total == 2


def test_a_wrong_question_names_its_field(nimbus: Nimbus) -> None:
    with pytest.raises(ValueError, match="is none of"):
        nimbus.funnel(["signup", "purchase"], last="7d", order="BACKWARDS")  # type: ignore[typeddict-item]
    with pytest.raises(NimbusError) as failure:
        nimbus.funnel(["signup"], last="7d")
    assert [wrong.field for wrong in failure.value.violations] == ["steps"]


def test_query_prints_a_table_or_the_whole_answer(stack: Stack, asked: Account) -> None:
    status, out, _ = run(stack, "query", "trend", asked.project_id, "--event", "signup", "--last", "7d")
    assert status == 0
    assert out.splitlines()[-2].split() == ["total", "2"]
    status, out, _ = run(
        stack, "query", "funnel", asked.project_id, "--step", "signup", "--step", "purchase", "--last", "7d", "--json"
    )
    assert [step["count"] for step in json.loads(out)["steps"]] == [2, 1]
    status, out, _ = run(stack, "query", "retention", asked.project_id, "--begin", "signup", "--last", "7d")
    assert (status, out.splitlines()[0].split()[:2]) == (0, ["cohort", "people"])
    status, out, _ = run(stack, "query", "paths", asked.project_id, "--anchor", "signup", "--last", "7d")
    assert (status, out.splitlines()[0].split()) == (0, ["step", "from", "to", "paths", "people"])


def test_explain_shows_the_sql_and_the_same_answer(stack: Stack, asked: Account) -> None:
    question = ("query", "trend", asked.project_id, "--last", "7d", "--by", "props.plan", "--bucket", "none")
    _, answer, _ = run(stack, *question)
    status, out, _ = run(stack, *question, "--explain")
    assert status == 0
    assert out.endswith(answer)
    assert "CREATE TEMP VIEW src AS" in out
    assert '"props.plan:s"' in out


def test_query_filters_and_says_what_is_wrong(stack: Stack, asked: Account) -> None:
    where = ("--where", "props.amount>=10", "--where", "props.plan=pro")
    _, out, _ = run(stack, "query", "trend", asked.project_id, "--last", "7d", "--bucket", "none", *where)
    assert out.splitlines()[-2].split() == ["total", "1"]
    status, out, err = run(stack, "query", "trend", asked.project_id, "--bucket", "2d")
    assert (status, out) == (1, "")
    assert err.startswith("bucket must be one of")


def test_what_a_terminal_would_obey_is_escaped(stack: Stack, asked: Account) -> None:
    _, out, _ = run(stack, "query", "trend", asked.project_id, "--by", "props.page", "--last", "7d")
    assert "\x1b" not in out
    assert "\\x1b[2J" in out
    _, out, _ = run(stack, "sql", asked.project_id, "-c", "SELECT props->>'page' FROM events WHERE name = 'page_view'")
    assert "\x1b" not in out
    assert "\\x1b[2J" in out


def test_sql_sees_every_event_to_the_last_digit(stack: Stack, asked: Account) -> None:
    counts = "SELECT name, count(*) AS n FROM events GROUP BY name ORDER BY name"
    status, out, _ = run(stack, "sql", asked.project_id, "-c", counts, "--format", "csv")
    assert status == 0
    rows = list(csv.reader(io.StringIO(out)))
    assert rows == [["name", "n"], ["page_view", "1"], ["purchase", "1"], ["signup", "2"]]
    status, out, _ = run(stack, "sql", asked.project_id, "--format", "json", given="SELECT * FROM events ORDER BY seq;")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["user_id"] for event in events] == ["ada", "ada", "bob", None]
    assert events[3]["props"] == {"page": HOSTILE, "big": 2**70}
    assert events[3]["anonymous_id"] == "a1"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('/**/*.parquet')",
        "COPY events TO '/dev/shm/nimbus-sql-out.csv'",
        "CREATE TABLE copied AS SELECT * FROM events",
        "ATTACH '/dev/shm/nimbus-sql.db'",
        "SET enable_external_access = true",
        "SELECT nothing FROM events",
        "SELEC",
    ],
)
def test_sql_reads_the_events_of_the_project_and_nothing_else(stack: Stack, asked: Account, statement: str) -> None:
    status, out, err = run(stack, "sql", asked.project_id, "-c", statement)
    assert (status, out) == (1, "")
    assert err


def test_ctrl_c_stops_a_statement_and_the_prompt_goes_on(stack: Stack, asked: Account) -> None:
    controller, terminal = os.openpty()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    arguments = ("sql", asked.project_id, "--data-dir", str(stack.data_dir))
    prompt = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        env={**clean, **ENVIRONMENT, "TERM": "dumb"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    said, ready = "", selectors.DefaultSelector()
    ready.register(controller, selectors.EVENT_READ)

    def says(text: str) -> bool:
        nonlocal said
        if ready.select(0.05):
            said += os.read(controller, 4096).decode(errors="replace")
        return text in said

    try:
        wait_until(lambda: says("nimbus> "))
        os.write(controller, b"SELECT count(*) FROM range(10000000) a, range(10000000) b;\n")
        before = sum(psutil.Process(prompt.pid).cpu_times()[:2])
        wait_until(lambda: sum(psutil.Process(prompt.pid).cpu_times()[:2]) > before + 0.3)
        prompt.send_signal(signal.SIGINT)
        wait_until(lambda: says("Stopped."))
        os.write(controller, b"SELECT 40 + 2 AS sum;\n\\q\n")
        wait_until(lambda: says("42"))
        assert prompt.wait(SECONDS_MAX) == 0, said
    finally:
        prompt.kill()
        prompt.wait()
        os.close(controller)

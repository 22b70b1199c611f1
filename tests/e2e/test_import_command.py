"""`nimbus import` as an operator runs it, into the database of a running Nimbus."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psutil
import psycopg
import pytest
import requests
from conftest import ENVIRONMENT, Account, Stack, new_account
from typer.testing import CliRunner

from nimbus_server.cli import app

START = datetime(2021, 1, 31, tzinfo=UTC)
SECONDS_MAX = 100
MANY = 40_000


def command(stack: Stack, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    return subprocess.Popen(
        [sys.executable, "-m", "nimbus_server", "import", "--data-dir", str(stack.data_dir), *map(str, arguments)],
        env={**clean, **ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(stack: Stack, *arguments: object, **environment: str) -> tuple[int, str]:
    """Exit status and what it said."""
    running = command(stack, *arguments, **environment)
    said, errors = running.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in said + errors, errors
    return running.returncode, said + errors


def at_once(stack: Stack, *arguments: object, **environment: str) -> tuple[int, str]:
    """As `run` of what fails before it begins, without a process."""
    clean = dict.fromkeys(name for name in os.environ if name.startswith("NIMBUS_"))
    ran = CliRunner().invoke(
        app,
        ["import", "--data-dir", str(stack.data_dir), *map(str, arguments)],
        env={**clean, **ENVIRONMENT, **environment},
    )
    assert isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.output


def write(path: Path, count: int) -> Path:
    """As many events over three months, not in the order of their times."""
    events = (
        {
            "name": "ab"[n % 2],
            "ts": START + timedelta(minutes=n * 7919 % 100_000),
            "user_id": f"u{n % 10}",
            "props": {"n": n},
        }
        for n in range(count)
    )
    path.write_bytes(b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events))
    return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of MANY events: ten commits."""
    return write(tmp_path_factory.mktemp("many") / "history.jsonl", MANY)


def stored(stack: Stack, project_id: str) -> list[tuple[int, Any]]:
    """Position and `n` of every event, in the order of positions."""
    with psycopg.connect(stack.dsn()) as connection:
        query = "SELECT seq, props->'n' FROM events WHERE project_id = %s ORDER BY seq"
        return connection.execute(query, (project_id,)).fetchall()


def holds_once(stack: Stack, project_id: str, count: int) -> None:
    """The first `count` events once each, in order, counted."""
    assert stored(stack, project_id) == [(n + 1, n) for n in range(count)]
    with psycopg.connect(stack.dsn()) as connection:
        different = connection.execute(
            "SELECT * FROM (SELECT date_trunc('minute', ts) AS minute, name, count(*) FROM events "
            "WHERE project_id = %(p)s GROUP BY 1, 2) AS recount "
            "FULL JOIN (SELECT minute, name, count FROM event_counts WHERE project_id = %(p)s) AS counted "
            "USING (minute, name, count) WHERE recount IS NULL OR counted IS NULL",
            {"p": project_id},
        ).fetchall()
    assert different == []


def wait_until_stored(stack: Stack, project_id: str, count: int, running: subprocess.Popen[str]) -> None:
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        query = "SELECT last_seq FROM streams WHERE project_id = %s"
        while running.poll() is None:
            row = connection.execute(query, (project_id,)).fetchone()
            assert row is not None
            if row[0] >= count:
                return


def listed(account: Account, **query: str) -> list[dict[str, Any]]:
    found = requests.get(
        f"{account.url}/v1/events", params={"project_id": account.project_id, **query}, headers=account.bearer
    )
    assert found.status_code == 200, found.text
    events: list[dict[str, Any]] = found.json()["items"]
    return events


def test_history_can_be_listed_and_a_second_run_adds_nothing(stack: Stack, account: Account, tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", 10)
    status, said = run(stack, "--project", account.project_id, path)
    assert (status, said) == (0, "10 events stored, 0 there already, 0 refused.\n")
    status, said = run(stack, "--project", account.project_id, path)
    assert (status, said) == (0, "0 events stored, 10 there already, 0 refused.\n")
    events = sorted(listed(account), key=lambda event: int(event["seq"]))
    assert [event["props"] for event in events] == [{"n": n} for n in range(10)]
    assert {event["user_id"] for event in events} == {f"u{n}" for n in range(10)}
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_of_another_system(stack: Stack, account: Account, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "ts", "name", "city", "note"])
        writer.writerow(["9f1c9c2e-6d5c-4b3e-9d57-0a6f0a1b2c3d", "1609459200", "sign\nup", "Zürich", 'a "quoted", one'])
        writer.writerow(["evt_2", "1609459200123", "sign\nup", "", ""])
    assert run(stack, "--project", account.project_id, path)[0] == 0
    second, first = listed(account)
    assert first["id"] == "9f1c9c2e-6d5c-4b3e-9d57-0a6f0a1b2c3d"
    assert first["props"] == {"city": "Zürich", "note": 'a "quoted", one'}
    assert (second["ts"], second["name"], second["props"]) == ("2021-01-01T00:00:00.123Z", "sign\nup", {})


def test_refused_lines_lie_beside_the_file_with_their_reasons(stack: Stack, account: Account, tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", 2)
    good = path.read_bytes()
    path.write_bytes(good + b'{"name": "n"}\n{"name"\n')
    side = tmp_path / "history.jsonl.rejected.jsonl"
    side.write_bytes(b"what an earlier run has left\n")
    status, said = run(stack, "--project", account.project_id, path)
    assert status == 1
    assert f"2 refused: see {side}" in said
    refused = [orjson.loads(line) for line in side.read_bytes().splitlines()]
    assert [(r["file"], r["line"], r["field"], r["reason"], r["text"]) for r in refused] == [
        ("history.jsonl", 3, "ts", "FIELD_REQUIRED", '{"name": "n"}'),
        ("history.jsonl", 4, "", "REQUEST_UNPARSABLE", '{"name"'),
    ]
    assert all(r["message"].endswith(".") for r in refused)
    elsewhere = tmp_path / "bad"
    assert run(stack, "--project", account.project_id, "--rejected", elsewhere, path)[0] == 1
    assert len(elsewhere.read_bytes().splitlines()) == 2
    # Nothing is left of it once all is good.
    path.write_bytes(good)
    assert run(stack, "--project", account.project_id, path)[0] == 0
    assert not side.exists()
    holds_once(stack, account.project_id, 2)


def test_a_file_of_refused_lines_is_not_lost_when_it_is_imported(
    stack: Stack, account: Account, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", 1)
    side = write(tmp_path / "a.jsonl.rejected.jsonl", 1)
    status, said = run(stack, "--project", account.project_id, path, side)
    assert (status, "can't be imported in the same run" in said) == (1, True)
    assert run(stack, "--project", account.project_id, "--rejected", path, path)[0] == 1
    assert path.read_bytes() == side.read_bytes() != b""


def test_what_retention_would_drop_is_refused(stack: Stack, account: Account, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 1)
    status, said = run(stack, "--project", account.project_id, path, NIMBUS_RETENTION_DAYS="30")
    assert (status, "0 events stored, 0 there already, 1 refused" in said) == (1, True)
    assert b"TS_OUT_OF_RANGE" in (tmp_path / "a.jsonl.rejected.jsonl").read_bytes()


def test_killed_at_any_moment_it_goes_on_where_it_was(stack: Stack, account: Account, history: Path) -> None:
    reached = 0
    for _ in range(2):
        running = command(stack, "--project", account.project_id, history)
        wait_until_stored(stack, account.project_id, reached + random.randint(1, MANY // 3), running)
        running.kill()
        running.communicate()
        reached = len(stored(stack, account.project_id))
        # What is there is a beginning of the file: nothing was left out.
        holds_once(stack, account.project_id, reached)
    status, said = run(stack, "--project", account.project_id, history)
    assert (status, f"{MANY - reached:,} events stored, {reached:,} there already" in said) == (0, True), said
    holds_once(stack, account.project_id, MANY)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_far_it_came(stack: Stack, account: Account, history: Path, how: signal.Signals) -> None:
    # Long enough that it can't be over before the signal is there.
    running = command(stack, "--project", account.project_id, history, history, history)
    wait_until_stored(stack, account.project_id, 1, running)
    children = psutil.Process(running.pid).children(recursive=True)
    # As a terminal does, which sends Ctrl-C to all of them.
    os.killpg(running.pid, how)
    said, errors = running.communicate(timeout=SECONDS_MAX)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert re.search(r"Stopped (after line [\d,]+ of .*history\.jsonl|at the beginning)\. Run the same command", errors)
    assert re.search(r"[\d,]+ events stored, [\d,]+ there already, 0 refused\.", said)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    holds_once(stack, account.project_id, len(stored(stack, account.project_id)))


def test_a_database_that_dies_is_waited_for(scratch: Path, history: Path) -> None:
    own = Stack(scratch / "data", arguments=("--workers", "1")).start()
    try:
        project_id = new_account(own).project_id
        running = command(own, "--project", project_id, history)
        wait_until_stored(own, project_id, 1, running)
        psutil.Process(int((own.data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])).kill()
        said, errors = running.communicate(timeout=SECONDS_MAX)
        assert (running.returncode, "Traceback" in errors) == (0, False), errors
        assert "The database can't be reached. Trying again" in errors
        holds_once(own, project_id, MANY)
        assert "0 refused." in said
    finally:
        own.stop()


def test_live_events_get_in_between(stack: Stack, account: Account, history: Path) -> None:
    running = command(stack, "--project", account.project_id, history)
    wait_until_stored(stack, account.project_id, 1, running)
    body = {"project_id": account.project_id, "events": [{"name": "live"}]}
    for _ in range(3):
        answer = requests.post(f"{stack.url}/v1/events", json=body, headers=account.bearer, timeout=30)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text
    assert running.poll() is None
    assert running.wait(SECONDS_MAX) == 0
    running.communicate()
    log = stored(stack, account.project_id)
    assert [seq for seq, _ in log] == list(range(1, MANY + 4))
    assert [n for _, n in log if n is not None] == list(range(MANY))


def failed(ran: tuple[int, str], words: Sequence[str]) -> bool:
    status, said = ran
    assert status == 1, said
    assert all(word in said for word in words), said
    return True


def test_what_can_not_begin_says_why(stack: Stack, account: Account, tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", 1)
    project = ("--project", account.project_id)
    nobody = "00000000-0000-0000-0000-000000000000"
    away = f"postgresql:///nimbus?host={tmp_path}"
    assert failed(run(stack, "--project", nobody, path), ["no project", nobody])
    assert failed(
        at_once(stack, *project, "--data-dir", tmp_path, path), ["No Nimbus runs", str(tmp_path), "--data-dir"]
    )
    assert failed(at_once(stack, *project, path, NIMBUS_DATABASE_URL=away), ["can't be reached", str(tmp_path)])
    assert failed(at_once(stack, *project, path, NIMBUS_DATABASE_URL="nonsense"), ["NIMBUS_DATABASE_URL"])
    assert failed(at_once(stack, *project, path, NIMBUS_DATABASE_URL=stack.dsn("postgres")), ["nimbus migrate"])
    assert failed(at_once(stack, *project, path, tmp_path / "gone.jsonl"), ["gone.jsonl", "No such file"])
    assert failed(at_once(stack, *project, tmp_path), ["folder", str(tmp_path)])
    assert failed(at_once(stack, *project, "--format", "csv", path), ["header", "history.jsonl"])
    assert stored(stack, account.project_id) == []
    assert at_once(stack, path)[0] == 2
    assert at_once(stack, "--project", "5", path)[0] == 2
    assert at_once(stack, *project, "--format", "xml", path)[0] == 2

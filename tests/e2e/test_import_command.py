"""`nimbus import` as an operator runs it, into the database of a running Nimbus."""

import csv
import os
import random
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import orjson
import psutil
import pytest
import requests
from conftest import STOPS_AT_ONCE, Account, Stack, new_account
from importing import SECONDS_MAX, at_once, command, holds_once, listed, run, stored, wait_until_stored, write

MANY = 40_000


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of MANY events: ten commits."""
    return write(tmp_path_factory.mktemp("many") / "history.jsonl", MANY)


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
    own = Stack(scratch / "data", {**STOPS_AT_ONCE, "NIMBUS_WORKERS": "1"}).start()
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

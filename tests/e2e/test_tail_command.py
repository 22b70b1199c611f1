"""`nimbus tail` as a person runs it, on a terminal and in pipes, here and elsewhere."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Account, Stack
from tailing import SECONDS_MAX, WATCHING, local, run, send, start

from nimbus_client import Event


@pytest.fixture
def three(stack: Stack, account: Account) -> Account:
    """A project with three events."""
    events = (Event("page view", "u1", {"plan": "pro", "n": 1}), Event("sign up", "u2", {"plan": "pro"}), Event("x"))
    send(stack, account, *events)
    return account


# --- what is shown ---


def test_the_nimbus_on_this_machine_needs_no_credentials(stack: Stack, three: Account) -> None:
    status, out, err = run(three, *local(stack), "--earliest", "--limit", 3)
    assert status == 0, err
    first, second, third = out.splitlines()
    assert re.fullmatch(r'       1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  page view  u1  {"n":1,"plan":"pro"}', first)
    assert second.endswith('  sign up  u2  {"plan":"pro"}')
    assert third.rstrip().endswith("  x  -")
    assert err == f"Watching project {three.project_id} behind position 0. Ctrl-C ends.\n"


def test_filters_and_starts(stack: Stack, three: Account) -> None:
    def seqs(*arguments: object) -> list[int]:
        status, out, err = run(three, *local(stack), "--json", *arguments)
        assert status == 0, err
        return [json.loads(line)["seq"] for line in out.splitlines()]

    assert seqs("--earliest", "--name", "x", "--name", "page view", "--limit", 2) == [1, 3]
    assert seqs("--earliest", "--user", "u2", "--limit", 1) == [2]
    assert seqs("--earliest", "--props", '{"plan": "pro"}', "--limit", 2) == [1, 2]
    assert seqs("--after", 2, "--limit", 1) == [3]
    assert seqs("--since", "10m", "--limit", 1) == [1]
    assert seqs(
        "--since", f"{datetime.now(UTC).astimezone() - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}", "--limit", 1
    ) == [1]


def test_json_is_an_object_a_line_as_soon_as_it_comes(stack: Stack, account: Account) -> None:
    process = start(account, *local(stack), "--json")
    assert WATCHING in process.stderr.readline()
    event = Event("é", None, {"big": 2**60, "text": "line\n\u2028"}, idempotency_key="k")
    send(stack, account, event)
    shown = json.loads(process.stdout.readline())
    assert (shown["seq"], shown["name"], shown["user_id"], shown["props"]) == (1, "é", None, event.props)
    assert (datetime.fromisoformat(shown["ts"]), shown["idempotency_key"]) == (event.ts, "k")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_what_is_piped_is_whole(stack: Stack, account: Account) -> None:
    send(stack, account, Event("long", "u", {"text": "x" * 3000}))
    status, out, err = run(account, *local(stack), "--earliest", "--limit", 1)
    assert (status, out.count("\n"), "x" * 3000 in out, "\x1b" in out) == (0, 1, True, False), err


def test_a_terminal_has_colours_a_width_and_no_commands_of_senders(stack: Stack, account: Account) -> None:
    send(stack, account, Event("\x1b]0;mine\x07\u202e", "u", {"long": "x" * 200, "\x9b": 1}))
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = start(account, *local(stack), "--earliest", "--limit", 1, stdout=its, TERM="xterm-256color", COLUMNS="80")
    _, err = process.communicate(timeout=SECONDS_MAX)
    os.close(its)
    assert process.returncode == 0, err
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[" in shown
    text = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert re.search(r'  \\x1b\]0;mine\\x07\\u202e  u  \{"\\x9b":1,"long":"…\r\n$', text)
    assert len(text.rstrip()) == 80


# --- elsewhere, and what can't be done ---


def test_a_nimbus_elsewhere_takes_a_token_or_a_key(stack: Stack, three: Account) -> None:
    def first(*arguments: object, **environment: str) -> tuple[int, str]:
        status, out, err = run(three, "--earliest", "--limit", 1, "--grpc-target", *arguments, **environment)
        return status, out or err

    target = stack.grpc_target
    for status, out in (
        first(target, NIMBUS_TOKEN=three.access_token),
        first(stack.edge_target, NIMBUS_TOKEN=three.access_token),
        first(target, "--key-id", three.api_key_id, NIMBUS_TAIL_SECRET=three.api_key_secret),
    ):
        assert status == 0, out
        assert "page view" in out
    status, err = first(target)
    assert (status, "NIMBUS_TOKEN" in err) == (1, True)
    status, err = first(target, NIMBUS_TOKEN="nonsense")
    assert (status, err.count("\n"), "TOKEN_INVALID" in err) == (1, 1, True)


def test_what_can_not_be_done_is_one_line(stack: Stack, three: Account, scratch: Path) -> None:
    for arguments, said in (
        (("--data-dir", scratch), "No Nimbus runs"),
        ((*local(stack), "--after", 9), "POSITION_AHEAD"),
        ((*local(stack), "--after", 1, "--earliest"), "do not go together"),
        ((*local(stack), "--since", "yesterday"), "--since takes"),
        ((*local(stack), "--props", "[1]"), "--props takes"),
        ((*local(stack), "--key-id", "k"), "--grpc-target"),
        (("--grpc-target", stack.url), "HOST:PORT"),
    ):
        status, out, err = run(three, *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert said in err


def test_who_names_no_project_is_shown_which_there_are(stack: Stack, three: Account) -> None:
    command = [sys.executable, "-m", "nimbus_server", "tail", *map(str, local(stack))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"\n  {three.project_id}  a project\n" in ran.stderr


def test_secrets_that_are_not_on_disk_must_be_given(stack: Stack, three: Account, scratch: Path) -> None:
    for part in ("run", "postgres"):
        (scratch / part).symlink_to(stack.data_dir / part)
    status, out, err = run(three, "--data-dir", scratch, "--earliest")
    assert (status, out, "NIMBUS_SECRET_KEYS" in err) == (1, "", True)
    assert not (scratch / "secrets.json").exists()

    key = json.loads((stack.data_dir / "secrets.json").read_bytes())["secret_key"]
    status, out, err = run(three, "--data-dir", scratch, "--earliest", "--limit", 1, NIMBUS_SECRET_KEYS=key)
    assert status == 0, err
    assert "page view" in out

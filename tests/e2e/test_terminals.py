"""Every command works on every terminal: what one can't show, or would obey, is escaped."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, Account, Stack, new_account, own_stack
from tailing import send

from nimbus_client import Event

SECONDS_MAX = 60
COLUMNS = 100
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    "C locale": (C_LOCALE, "ascii"),
    "utf-8": ({"PYTHONIOENCODING": "utf-8"}, "utf-8"),
}
WORDS = "é 日本 🎉"
# With a command that would turn a terminal red.
FILE = b"\x1b[31m.jsonl"


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    """A stack in the C locale, below a folder whose name is not ASCII."""
    with own_stack(C_LOCALE, "dé") as stack:
        yield stack
        assert stack.stop() == 0, "".join(stack.lines)


@pytest.fixture(scope="module")
def account(own: Stack) -> Account:
    someone = new_account(own)
    send(own, someone, Event(WORDS, WORDS, {"text": WORDS * 20}))
    return someone


def run(environment: dict[str, str], *arguments: object, terminal: bool = False) -> tuple[int, bytes]:
    """Exit status and all output of a command, on a terminal or in a pipe."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NIMBUS_", "PYTHON", "LC_"))}
    clean |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "nimbus_server", *(a if isinstance(a, bytes) else str(a) for a in arguments)],
        env={**clean, **ENVIRONMENT, "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while some := os.read(ours, 65536):
            said += some
    except OSError:
        pass  # a terminal's end
    finally:
        os.close(ours)
    return process.wait(SECONDS_MAX), said


@pytest.fixture(params=TERMINALS)
def kind(request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    return TERMINALS[request.param]


@pytest.mark.parametrize("terminal", [False, True])
def test_tail_escapes_what_cannot_be_shown(
    own: Stack, account: Account, kind: tuple[dict[str, str], str], terminal: bool
) -> None:
    environment, encoding = kind
    status, said = run(
        environment,
        "tail",
        account.project_id,
        "--data-dir",
        own.data_dir,
        "--earliest",
        "--limit",
        1,
        terminal=terminal,
    )
    assert status == 0, said
    shown = said.decode(encoding)  # strictly: nothing else is written
    assert WORDS.encode(encoding, "backslashreplace").decode(encoding) in shown
    if terminal:
        assert len(shown.splitlines()) == 2  # what it watches, and one line cut to the width


def test_tail_for_programs_is_utf_8_whatever_the_terminal(
    own: Stack, account: Account, kind: tuple[dict[str, str], str]
) -> None:
    arguments = ("tail", account.project_id, "--data-dir", own.data_dir, "--earliest", "--limit", 1, "--json")
    status, said = run(kind[0], *arguments)
    assert status == 0, said
    assert json.loads(said.splitlines()[-1])["name"] == WORDS


@pytest.mark.parametrize("terminal", [False, True])
def test_an_import_names_files_that_cannot_be_shown(
    own: Stack, account: Account, kind: tuple[dict[str, str], str], terminal: bool, scratch: Path
) -> None:
    environment, encoding = kind
    file = os.fsencode(scratch) + b"/" + FILE
    Path(os.fsdecode(file)).write_bytes(b'{"name": "n", "ts": 1600000000}\n{}\n')
    status, said = run(
        environment, "import", "--project", account.project_id, "--data-dir", own.data_dir, file, terminal=terminal
    )
    assert status == 1, said
    shown = said.decode(encoding)
    assert "1 refused" in shown
    assert r"\x1b[31m.jsonl" in shown
    assert b"\x1b[31m.jsonl" not in said


BAD = b"/tmp/\xff\xc3\xa9\x1b[31m"
NOWHERE = "617692fb-c436-4dc2-866a-211741f31198"
REFUSED = {
    "up": ("up", "--data-dir", BAD),
    "import": ("import", "--data-dir", BAD, "--project", NOWHERE, "/dev/null.csv"),
    "tail": ("tail", NOWHERE, "--data-dir", BAD),
    "bench": ("bench", "--url", BAD),
    "render": ("envoy", "render", "--socket", BAD),
    "an unknown option": ("config", b"--" + BAD),
    "an unknown command": (BAD,),
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_refused_is_said_in_the_encoding_of_the_terminal(command: str) -> None:
    status, said = run({"PYTHONIOENCODING": "ascii"}, *REFUSED[command])
    assert status in {1, 2}
    assert rb"\x1b[31m" in said.decode("ascii").encode()
    assert b"Traceback" not in said
    assert b"\x1b" not in said


ELSEWHERE = ("tail", NOWHERE, "--grpc-target", "127.0.0.1:1")
LOAD = ("bench", "--url", "http://127.0.0.1:1")
UNSENDABLE = {
    "a target to watch": ("--grpc-target", {"NIMBUS_TOKEN": "t"}, ("tail", NOWHERE, "--grpc-target", BAD)),
    "a key to watch with": ("--key-id", {"NIMBUS_TAIL_SECRET": "s"}, (*ELSEWHERE, "--key-id", BAD)),
    "its secret": ("NIMBUS_TAIL_SECRET", {"NIMBUS_TAIL_SECRET": os.fsdecode(BAD)}, (*ELSEWHERE, "--key-id", "k")),
    "a token": ("NIMBUS_TOKEN", {"NIMBUS_TOKEN": os.fsdecode(BAD)}, ELSEWHERE),
    "a user": ("--user", {"NIMBUS_TOKEN": "t"}, (*ELSEWHERE, "--user", BAD)),
    "a name": ("--name", {"NIMBUS_TOKEN": "t"}, (*ELSEWHERE, "--name", BAD)),
    "a target to measure": ("--grpc-target", {}, (*LOAD, "--grpc-target", BAD)),
    "a key to measure with": (
        "--key-id",
        {"NIMBUS_BENCH_SECRET": "s"},
        (*LOAD, "--project", NOWHERE, "--key-id", BAD),
    ),
}


@pytest.mark.parametrize("what", UNSENDABLE)
def test_what_cannot_be_sent_is_named(what: str) -> None:
    name, environment, arguments = UNSENDABLE[what]
    status, said = run({"PYTHONIOENCODING": "ascii", **environment}, *arguments)
    assert status == 1
    assert name.encode() in said
    assert b"Traceback" not in said


def test_settings_are_shown_as_they_are_but_for_what_cannot_be(kind: tuple[dict[str, str], str]) -> None:
    environment, encoding = kind
    status, said = run({**environment, "NIMBUS_APP_NAME": f"{WORDS[0]}[/x]\x1b[31m"}, "config")
    assert status == 0, said
    shown = said.decode(encoding)
    name = r"\xc3\xa9" if environment is C_LOCALE else "é".encode(encoding, "backslashreplace").decode(encoding)
    assert rf"{name}[/x]\x1b[31m" in shown


def test_the_console_of_up_is_in_the_encoding_of_its_locale(own: Stack) -> None:
    assert own.process is not None
    "".join(own.lines).encode("ascii")
    assert rf"{own.data_dir.parent}/d\xc3\xa9" in "".join(own.lines)

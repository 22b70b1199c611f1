"""How `nimbus tail` goes on, and how it ends."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import STOPS_AT_ONCE, Account, Stack, new_account
from tailing import SECONDS_MAX, WATCHING, local, send, start

from nimbus_client import Event


def read_until(stream: Any, wanted: Callable[[str], bool]) -> list[str]:
    """Lines up to and with the one that is wanted; whoever waits too long is stopped by the suite's timeout."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if wanted(line):
            return lines
    pytest.fail("it ended:\n" + "".join(lines))


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("coming", [0, 20_000])
def test_it_ends_quietly_when_nobody_reads_any_more(
    stack: Stack, account: Account, form: tuple[str, ...], coming: int
) -> None:
    send(stack, account, *(Event("tick") for _ in range(1 + coming)))
    process = start(account, *local(stack), "--earliest", *form)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(SECONDS_MAX) == 141
    lines = process.stderr.read().splitlines()
    process.stderr.close()
    assert len(lines) == 1
    assert WATCHING in lines[0]


@pytest.fixture
def own(scratch: Path) -> Iterator[Stack]:
    stack = Stack(scratch / "data", STOPS_AT_ONCE).start()
    yield stack
    stack.stop()


def test_it_says_when_nimbus_is_away_and_back_and_shows_every_event_once(own: Stack) -> None:
    account = new_account(own)
    process = start(account, *local(own), "--json")
    assert WATCHING in process.stderr.readline()
    send(own, account, Event("before"))
    read_until(process.stdout, lambda line: '"before"' in line)

    assert own.process is not None
    for child in psutil.Process(own.process.pid).children():
        if "nimbus_server serve" in " ".join(child.cmdline()):
            child.kill()
    read_until(process.stderr, lambda line: "Nimbus is away" in line)
    read_until(process.stderr, lambda line: "Nimbus is back" in line)
    send(own, account, Event("between"))
    read_until(process.stdout, lambda line: '"between"' in line)

    own.stop()
    read_until(process.stderr, lambda line: "Nimbus is away" in line)
    own.start()
    send(own, account, Event("after"))
    assert json.loads(process.stdout.readline())["seq"] == 3
    read_until(process.stderr, lambda line: "Nimbus is back" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130


def test_one_that_is_not_there_yet_is_waited_for(account: Account) -> None:
    process = start(account, "--grpc-target", "127.0.0.1:1", NIMBUS_TOKEN="any")
    assert "Nimbus is away (UNAVAILABLE" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err

"""`nimbus tail` as a process."""

import os
import subprocess
import sys
from typing import Any

from conftest import ENVIRONMENT, INTERRUPTIBLE, Account, Stack

from nimbus_client import Event, Nimbus

SECONDS_MAX = 60
WATCHING = "Watching project"


def send(stack: Stack, account: Account, *events: Event) -> None:
    key = {"project_id": account.project_id, "key_id": account.api_key_id, "secret": account.api_key_secret}
    with Nimbus(stack.grpc_target, **key) as nimbus:
        assert nimbus.send(events).rejected == 0


def start(account: Account, *arguments: object, stdout: int = subprocess.PIPE, **environment: str) -> Any:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "tail", account.project_id, *map(str, arguments)],
        env={**clean, **ENVIRONMENT, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(account: Account, *arguments: object, **environment: str) -> tuple[int, str, str]:
    process = start(account, *arguments, **environment)
    out, err = process.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in err
    return process.returncode, out, err


def local(stack: Stack) -> tuple[object, ...]:
    return ("--data-dir", stack.data_dir)

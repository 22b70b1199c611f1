"""`nimbus analyst` beside `nimbus serve`, without a supervisor."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asking import fill, until_answered
from conftest import ENVIRONMENT, Account, Stack
from credentials import person
from surface import RPCS
from test_startup_errors import nimbus, refused
from test_supervision import wait_until
from transports import over_grpc

ASK = RPCS["AnalysisService.ListEventNames"]


@contextmanager
def running(stack: Stack, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `nimbus` command with the database and the secrets of a stack; ended in order."""
    kept = json.loads((stack.data_dir / "secrets.json").read_text())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    given = {
        "NIMBUS_DATABASE_URL": stack.dsn(),
        "NIMBUS_JWT_SECRET": kept["jwt_secret"],
        "NIMBUS_SECRET_KEYS": kept["secret_key"],
        "NIMBUS_DRAIN_SECONDS": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "nimbus_server", *arguments], env={**clean, **ENVIRONMENT, **given}
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def serves(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_worker_passes_questions_on_to_the_analyst_it_is_told_of(
    stack: Stack, account: Account, scratch: Path
) -> None:
    fill(stack, account, 40)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    at = str(scratch / "with a % analyst.sock")
    with (
        running(stack, "serve", "--grpc-port", port, "--analyst-socket", at),
        running(stack, "analyst", "--socket", at, "--data-dir", str(scratch)),
    ):
        wait_until(lambda: serves(int(port)))
        fields = {"project_id": account.project_id}
        until_answered(lambda: over_grpc(f"127.0.0.1:{port}", ASK, fields, person(account)))
        answer = over_grpc(f"127.0.0.1:{port}", ASK, fields, person(account)).response
        assert {info.name: info.events for info in answer.names} == {f"n{n}": 2 for n in range(20)}


def test_an_analyst_without_a_database_is_refused(scratch: Path) -> None:
    assert refused(nimbus("analyst", "--socket", str(scratch / "a.sock")), "NIMBUS_DATABASE_URL")


def test_a_folder_that_cannot_be_written_is_refused(scratch: Path) -> None:
    (scratch / "segments").write_text("a file")
    database = {"NIMBUS_DATABASE_URL": "postgresql:///none?host=/nowhere"}
    ran = nimbus("analyst", "--socket", str(scratch / "a.sock"), "--data-dir", str(scratch), **database)
    assert refused(ran, str(scratch / "segments"))

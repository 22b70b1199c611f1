"""What tests share: the real stack, started once, and people with projects in it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

pytest_plugins = ["databases"]

MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 4 * 1024**3  # noqa: S108 - mkdtemp makes the folders in it
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
# A person's password hash takes a quarter of a second at the cost of production.
ENVIRONMENT = {"NIMBUS_ENVIRONMENT": "test", "NIMBUS_BCRYPT_COST": "4", "NIMBUS_DRAIN_SECONDS": "5"}
# For stacks that nobody calls any more when they stop: not to wait until the edge has noticed saves two seconds.
STOPS_AT_ONCE = {"NIMBUS_DRAIN_SECONDS": "0"}


def pytest_configure() -> None:
    """Have data folders lie in memory where there is room for them.

    What a kill -9 can take is the same there, and no test cuts the power: all that the disk would add is waiting.
    A benchmark, which imports this module and is no test, stays on the disk.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
        tempfile.tempdir = str(MEMORY)


@dataclass
class Stack:
    """A `nimbus up` of its own, on free ports, in a data folder of its own."""

    data_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    def start(self) -> "Stack":
        """Start it and wait until it says where it is. Fails the test with its output where it does not."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
        command = [sys.executable, "-m", "nimbus_server", "up", "--http-port", "0", "--grpc-port", "0"]
        self.lines.clear()
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(self.data_dir), *self.arguments],
            env={**clean, **ENVIRONMENT, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        up = threading.Event()
        threading.Thread(target=self._read, args=(self.process, up), daemon=True).start()
        if not up.wait(READY_SECONDS_MAX) or self.process.poll() is not None:
            self.process.kill()
            pytest.fail("the stack did not start:\n" + "".join(self.lines))
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it in order and return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(STOP_SECONDS_MAX)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    @property
    def url(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self._port('REST')}"

    @property
    def grpc_target(self) -> str:
        """Where native gRPC is."""
        return f"127.0.0.1:{self._port('gRPC')}"

    @property
    def edge_target(self) -> str:
        """Where gRPC through Envoy is."""
        return f"127.0.0.1:{self._port('REST')}"

    def dsn(self, database: str = "nimbus") -> str:
        """The stack's own PostgreSQL."""
        return f"postgresql:///{database}?host={self.data_dir}/postgres&user=nimbus"

    def log(self, name: str) -> str:
        """What a process of the stack has logged."""
        return (self.data_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def _port(self, name: str) -> int:
        found = re.search(rf"^\s*{name}\s+(?:http://)?127\.0\.0\.1:(\d+)", "".join(self.lines), re.MULTILINE)
        assert found, "".join(self.lines)
        return int(found[1])

    def _read(self, process: subprocess.Popen[str], up: threading.Event) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self.lines.append(line)
                if "A first request" in line:
                    up.set()
        except ValueError:
            pass  # closed by stop()
        up.set()


# Runs `nimbus` so that a Ctrl-C reaches it: what a shell has put into the background ignores that, and hands it on.
# Not by `preexec_fn`, which may deadlock in a process with threads, as gRPC brings them.
INTERRUPTIBLE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "nimbus"
runpy.run_module("nimbus_server", run_name="__main__")
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a path short enough for sockets, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="nimbus-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def own_stack(environment: Mapping[str, str], folder: str = "data") -> Iterator[Stack]:
    """A stack with these settings for the tests of one module, in a data folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nimbus-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        running = Stack(Path(path) / folder, {**STOPS_AT_ONCE, **environment}).start()
        yield running
        running.stop()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack that tests share; a test that kills or configures it makes its own."""
    path = Path(tempfile.mkdtemp(prefix="nimbus-"))
    path.chmod(0o755)
    running = Stack(path / "data").start()
    yield running
    status = running.stop()
    said = "".join(log.read_text(errors="replace") for log in (path / "data" / "logs").glob("worker-*.log"))
    shutil.rmtree(path, ignore_errors=True)
    assert status == 0, "".join(running.lines)
    # Errors that nobody waited for, such as those of generators that were left to the garbage collector.
    assert "was never retrieved" not in said


@dataclass(frozen=True)
class Account:
    """A registered person with one project."""

    url: str
    email: str
    password: str
    access_token: str
    refresh_token: str
    project_id: str
    api_key_id: str
    api_key_secret: str

    @property
    def bearer(self) -> dict[str, str]:
        """The header that proves who they are."""
        return {"authorization": f"Bearer {self.access_token}"}


def new_account(stack: Stack) -> Account:
    """Register someone and create a project for them, over REST."""
    email, password = f"{uuid.uuid4().hex}@example.com", "correct horse battery"
    tokens = requests.post(f"{stack.url}/v1/auth/register", json={"email": email, "password": password}, timeout=30)
    assert tokens.status_code == 200, tokens.text
    access_token = tokens.json()["access_token"]
    created = requests.post(
        f"{stack.url}/v1/projects",
        json={"name": "a project"},
        headers={"authorization": f"Bearer {access_token}"},
        timeout=30,
    )
    assert created.status_code == 200, created.text
    project = created.json()
    return Account(
        stack.url,
        email,
        password,
        access_token,
        tokens.json()["refresh_token"],
        project["project"]["id"],
        project["project"]["api_key_id"],
        project["api_key_secret"],
    )


@pytest.fixture
def account(stack: Stack) -> Account:
    """Someone new, with a new project."""
    return new_account(stack)

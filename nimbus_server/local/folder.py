"""The data folder: its layout, and the two locks that keep one Nimbus at a time on it."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nimbus_server.errors import StartupError
from nimbus_server.local.console import Console

# Longest path that a Unix socket can have: sun_path holds 108 bytes, the last of them zero.
SOCKET_PATH_BYTES_MAX = 107
# No port is opened: it only names the socket. Fixed, whatever PGPORT says.
POSTGRES_PORT = 5432


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where things lie below `--data-dir`. All but the database may be entered by the owner of the process alone."""

    root: Path

    @property
    def postgres(self) -> Path:
        """The home of PostgreSQL: its database and its socket."""
        return self.root / "postgres"

    @property
    def database(self) -> Path:
        """The database cluster."""
        return self.postgres / "data"

    @property
    def postgres_socket(self) -> Path:
        """The socket of PostgreSQL, under the name that clients derive from its folder and port."""
        return self.postgres / f".s.PGSQL.{POSTGRES_PORT}"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What only makes sense while Nimbus runs: sockets, Envoy's configuration."""
        return self.root / "run"

    @property
    def secrets(self) -> Path:
        """The secrets that Nimbus made for itself."""
        return self.root / "secrets.json"

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface."""
        return self.run / "envoy-admin.sock"

    @property
    def analyst_socket(self) -> Path:
        """The socket over which workers reach the analyst."""
        return self.run / "analyst.sock"

    def worker_socket(self, index: int) -> Path:
        """The socket over which Envoy reaches worker `index`."""
        return self.run / f"worker-{index}.sock"

    def websocket_socket(self, index: int) -> Path:
        """The socket over which Envoy brings WebSockets to worker `index`."""
        return self.run / f"websocket-{index}.sock"

    def log(self, name: str) -> Path:
        """The log of the process `name`."""
        return self.logs / f"{name}.log"


def open_folder(path: Path) -> DataFolder:
    """Make the data folder and what belongs in it, where it is missing.

    Raises StartupError where it can't be written, or a socket in it would have too long a path.
    """
    folder = DataFolder(path.expanduser().resolve())
    longest = max(
        (folder.postgres_socket, folder.admin_socket, folder.websocket_socket(999)),
        key=lambda p: len(os.fsencode(p)),
    )
    excess = len(os.fsencode(longest)) - SOCKET_PATH_BYTES_MAX
    if excess > 0:
        raise StartupError(
            f"The path of the data folder {folder.root} is {excess} bytes too long for the sockets in it. "
            "Choose a shorter one with --data-dir."
        )
    try:
        os.fsencode(folder.root).decode()
    except UnicodeDecodeError:
        raise StartupError(
            f"The path of the data folder {folder.root} is not UTF-8, and no connection string can hold it. "
            "Choose another with --data-dir."
        ) from None
    if "," in str(folder.root):
        raise StartupError(
            f"The path of the data folder {folder.root} has a comma, which no connection string can hold. "
            "Choose another with --data-dir."
        )
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for private in (folder.logs, folder.run):
            private.mkdir(mode=0o700, exist_ok=True)
            private.chmod(0o700)
    except OSError as error:
        raise _not_writable(folder, error) from None
    return folder


def lock(folder: DataFolder) -> int:
    """Hold the folder for as long as this process lives, and return the lock's descriptor.

    Raises StartupError where another Nimbus holds it, or the folder can't be written.
    """
    descriptor = _open_lock(folder, "nimbus.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StartupError(
            f"Another Nimbus (pid {pid or 'unknown'}) runs on the data folder {folder.root}. "
            "Stop it, or choose another with --data-dir."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


async def leash(folder: DataFolder, patience_seconds: float, end_orphans: Callable[[], None], console: Console) -> int:
    """Wait until every process of an earlier Nimbus on this folder has ended, and return the descriptor that shows it.

    Every child inherits the descriptor, so the kernel keeps its lock while any of them lives: after a supervisor was
    killed, the next one neither meets a worker that still drains nor a PostgreSQL that still writes its checkpoint.
    `end_orphans` ends those that would not end by themselves.
    Raises StartupError where they have not ended after `patience_seconds`.
    """
    descriptor = _open_lock(folder, "children.lock")
    deadline = time.monotonic() + patience_seconds
    if _try_lock(descriptor):
        return descriptor
    with console.step("Waiting for the processes of an earlier Nimbus to end") as step:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise StartupError(
                    f"Processes of an earlier Nimbus still use the data folder {folder.root}. "
                    "Wait until they have ended, or end them."
                )
            await asyncio.to_thread(end_orphans)
            await asyncio.sleep(0.1)
        step.done = "The processes of an earlier Nimbus have ended"
    return descriptor


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_lock(folder: DataFolder, name: str) -> int:
    try:
        return os.open(folder.root / name, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _not_writable(folder, error) from None


def _not_writable(folder: DataFolder, error: OSError) -> StartupError:
    return StartupError(
        f"The data folder {folder.root} can't be written ({error.strerror}). "
        "Make it writable, or choose another with --data-dir."
    )

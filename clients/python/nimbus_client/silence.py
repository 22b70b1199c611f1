"""Notices that a stream has fallen silent, for readers that wait in a thread and can't tell silence from death."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nimbus_client.progress import SILENCE_SECONDS_MAX

LOOK_SECONDS = 1.0


class Watch:
    """Cancels a call that is waited for and says nothing for SILENCE_SECONDS_MAX. `close` it."""

    def __init__(self) -> None:
        self.has_cancelled = False
        self._waiting: tuple[Any, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nimbus subscription", daemon=True)

    @contextmanager
    def over(self, call: Any) -> Iterator[None]:
        """Watch over a call while something of it is waited for."""
        if self._thread.ident is None:
            self._thread.start()
        self.has_cancelled = False
        self._waiting = call, time.monotonic()
        try:
            yield
        finally:
            self._waiting = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            waiting = self._waiting
            if waiting is not None and time.monotonic() - waiting[1] > SILENCE_SECONDS_MAX:
                self.has_cancelled = True
                waiting[0].cancel()

"""What `nimbus up` tells the person who started it: one line a step, with the time it took."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console as RichConsole
from rich.text import Text

from nimbus_server.terminal import visible, visible_lines


class _Terminal(RichConsole):
    def on_broken_pipe(self) -> None:
        # Whoever read our lines has gone; that is no reason to stop serving.
        self.quiet = True
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  # open as long as the process lives


class Step:
    """A step under way. `done` is what its line says at the end."""

    def __init__(self, done: str) -> None:
        self.done = done


class Console:
    """Lines on standard output: with a spinner on a terminal, plain elsewhere. Never raises over a closed output."""

    def __init__(self) -> None:
        self._terminal = _Terminal(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        with suppress(OSError):
            self._terminal.print(visible_lines(text, self._terminal.encoding), style=style)

    def warn(self, text: str) -> None:
        """Print one line that asks for attention."""
        self.line(text, style="yellow")

    @contextmanager
    def step(self, doing: str) -> Iterator[Step]:
        """Say what is waited for and, unless there is an exception, that it is done and how many seconds it took."""
        step = Step(doing)
        started = time.monotonic()
        if self._terminal.is_terminal:
            with self._terminal.status(Text(f"{visible(doing, self._terminal.encoding)} ..."), spinner="line"):
                yield step
        else:
            self.line(f"{doing} ...")
            yield step
        self.line(f"{step.done} ({time.monotonic() - started:.1f} s)")

"""How far an import has come, on a terminal."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    FileSizeColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nimbus_server.importer.source import Block
from nimbus_server.terminal import visible


class Bar:
    """A bar over the bytes of all sources, with the rate in rows and the time that remains; nothing but on a terminal.

    Where their size is not known, it shows how many bytes were read, and for how long.
    """

    def __init__(self, sizes: Sequence[int | None]) -> None:
        """`sizes` are in bytes."""
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        console = Console(stderr=True)
        self._console = console
        self._rate = _Rate()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            FileSizeColumn() if total is None else TaskProgressColumn(),
            self._rate,
            TimeElapsedColumn() if total is None else TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bytes = self._progress.add_task("", total=total)
        # Not to be seen: it measures the rate.
        self._rows = self._progress.add_task("rows", total=None, visible=False)
        self._rate.rows = self._progress.tasks[1]
        self._begins = 0
        self._last: Block | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def move(self, block: Block) -> None:
        """The block is done."""
        if self._last is not None and block.source != self._last.source:
            self._begins += self._last.position if self._last.source.size is None else self._last.source.size
        self._last = block
        self._progress.update(
            self._bytes,
            completed=self._begins + block.position,
            description=visible(block.source.name.name, self._console.encoding),
        )
        self._progress.advance(self._rows, block.records)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(visible(text, self._console.encoding), markup=False, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Rows a second, of late."""

    rows: Task | None = None

    def render(self, task: Task) -> Text:  # noqa: ARG002 - it is one of all columns
        speed = self.rows.speed if self.rows is not None else None
        return Text("" if speed is None else f"{speed:,.0f} rows/s")

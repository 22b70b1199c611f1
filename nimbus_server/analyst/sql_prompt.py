"""What `nimbus sql` reads and shows."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal
from uuid import UUID

from rich.console import Console
from rich.table import Table

from nimbus_server.analyst.sql import Events, Result, open_events
from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings
from nimbus_server.terminal import say, visible

Format = Literal["table", "csv", "json"]
PROMPT, MORE = "nimbus> ", "   ...> "
HELP = """\
Statements end with a semicolon and read the view `events`: seq, ts and received_at (UTC), name, user_id, anonymous_id,
idempotency_key, id, props and context (JSON: props->>'plan'). \\refresh reads the log as it is now; \\q ends."""


def run(settings: Settings, project_id: UUID, command: str | None, form: Format) -> int:
    """Run a command, or what is typed or piped in; returns the exit status. Raises StartupError.

    Not within an event loop: that would keep Ctrl-C from what blocks it.
    """
    with open_events(settings, project_id) as events:
        if command is not None:
            _show(events, command, form)
            return 0
        if not sys.stdin.isatty():
            _show(events, sys.stdin.read(), form)
            return 0
        with suppress(ImportError):
            import readline  # noqa: F401 - input() then has history and editing
        say(f"Events up to position {events.position}. {HELP}")
        for statement in _typed():
            try:
                if statement == "\\refresh":
                    events.refresh()
                    say(f"Events up to position {events.position}.")
                else:
                    _show(events, statement, form)
            except StartupError as error:
                say(str(error), err=True)
            except KeyboardInterrupt:
                say("Stopped.", err=True)
        return 0


def _typed() -> Iterator[str]:
    """What is typed, a statement or a command at a time, to its end."""
    lines: list[str] = []
    while True:
        try:
            line = input(MORE if lines else PROMPT)
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            lines.clear()
            say("")
            continue
        if not lines and line.strip() in {"\\q", "exit", "quit"}:
            return
        if not lines and line.strip() in {"\\h", "help"}:
            say(HELP)
        elif not lines and line.strip() == "\\refresh":
            yield line.strip()
        elif line.strip() or lines:
            lines.append(line)
            if line.rstrip().endswith(";"):
                yield "\n".join(lines)
                lines.clear()


def _show(events: Events, sql: str, form: Format) -> None:
    for result in events.run(sql):
        {"table": _table, "csv": _csv, "json": _json}[form](result)


def _table(result: Result) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    table = Table(*(visible(name, console.encoding) for name, _ in result.columns), box=None, pad_edge=False)
    for row in result.rows:
        table.add_row(*("NULL" if value is None else visible(str(value), console.encoding) for value in row))
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
    console.print(f"({table.row_count:,} rows)")


def _csv(result: Result) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(name for name, _ in result.columns)
    writer.writerows(result.rows)
    sys.stdout.flush()


def _json(result: Result) -> None:
    keys = [json.dumps(name, ensure_ascii=False) for name, _ in result.columns]
    # What is JSON already stays to the letter, with every digit of its numbers.
    encoders = [str if kind == "JSON" else _encoded for _, kind in result.columns]
    for row in result.rows:
        values = ["null" if value is None else encode(value) for encode, value in zip(encoders, row, strict=True)]
        sys.stdout.write("{" + ", ".join(map("{}: {}".format, keys, values)) + "}\n")
    sys.stdout.flush()


def _encoded(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)

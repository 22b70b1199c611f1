"""What `nimbus sql` reads and shows."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

import duckdb
from rich.console import Console
from rich.table import Table

from nimbus_server.analyst.sql import Events, open_events
from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings
from nimbus_server.terminal import say, visible

Format = Literal["table", "csv", "json"]
PROMPT, MORE = "nimbus> ", "   ...> "
ROWS_AT_A_TIME = 1000
HELP = """\
Statements end with a semicolon and read the view `events`: seq, ts and received_at (UTC), name, user_id, anonymous_id,
idempotency_key, id, props and context (JSON: props->>'plan'). \\refresh reads the log as it is now; \\q ends."""


async def run(settings: Settings, project_id: UUID, command: str | None, form: Format) -> int:
    """Run a command, or what is typed or piped in; returns the exit status. Raises StartupError."""
    async with open_events(settings, project_id) as events:
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
                    await events.refresh()
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
    shown: dict[Format, Callable[[list[str], list[str], Iterator[tuple[Any, ...]]], None]] = {
        "table": _table,
        "csv": _csv,
        "json": _json,
    }
    for cursor in events.run(sql):
        names = [column[0] for column in cursor.description or ()]
        types = [str(column[1]) for column in cursor.description or ()]
        try:
            shown[form](names, types, _rows(cursor))
        except duckdb.Error as error:
            raise StartupError(str(error)) from error


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(ROWS_AT_A_TIME):
        yield from rows


def _table(names: list[str], _types: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    table = Table(*(visible(name, console.encoding) for name in names), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("NULL" if value is None else visible(str(value), console.encoding) for value in row))
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
    console.print(f"({table.row_count:,} rows)")


def _csv(names: list[str], _types: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(names)
    writer.writerows(rows)
    sys.stdout.flush()


def _json(names: list[str], types: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    keys = [json.dumps(name, ensure_ascii=False) for name in names]
    # What is JSON already stays to the letter, with every digit of its numbers.
    encoders = [str if kind == "JSON" else _encoded for kind in types]
    for row in rows:
        values = ["null" if value is None else encode(value) for encode, value in zip(encoders, row, strict=True)]
        sys.stdout.write("{" + ", ".join(map("{}: {}".format, keys, values)) + "}\n")
    sys.stdout.flush()


def _encoded(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)

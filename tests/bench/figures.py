"""`make bench`: every figure that Nimbus is to reach, beside its reference of the same run, on servers of its own.

Machines are noisy: reference and measurement take turns, medians are compared, and the ratio is what counts.
"""

import asyncio
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from goals import Figure
from lab import Effort, Lab, say
from measurements import MEASUREMENTS

from nimbus_server.bench.report import Sheet, machine


def main(
    only: Annotated[str, typer.Option(help=f"Some of {','.join(MEASUREMENTS)}.")] = ",".join(MEASUREMENTS),
    rounds: Annotated[int, typer.Option(min=1, help="Turns of reference and measurement.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each turn.")] = 5,
    rows: Annotated[int, typer.Option(envvar="ROWS", min=1, help="Events that are stored beforehand.")] = 10_000_000,
    events: Annotated[int, typer.Option(envvar="EVENTS", min=10_000, help="Events for the memory.")] = 10_000_000,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """Measure, and print the table."""
    names = only.split(",")
    if unknown := set(names) - set(MEASUREMENTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(MEASUREMENTS)}")
    with TemporaryDirectory(prefix="nimbus-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        with Lab(Path(folder), Effort(rounds, seconds, rows, events)) as lab:
            figures = asyncio.run(measure(names, lab))
    Sheet(
        f"Nimbus on a machine with {machine()}, client and database on it too. "
        f"Medians of {rounds} turns of {seconds:g} s; least and most in brackets.",
        ("what", "reference, same run", "result", "ratio", "goal", "met"),
        [figure.row for figure in figures],
        numbers=("ratio",),
    ).print(markdown=markdown)


async def measure(names: list[str], lab: Lab) -> list[Figure]:
    """The figures of these names."""
    figures = []
    for name in names:
        measured = await MEASUREMENTS[name](lab)
        figures += measured if isinstance(measured, list) else [measured]
        say(" | ".join(figures[-1].row))
    return figures


def interrupt(*_: object) -> None:
    """The stacks get a Ctrl-C too: whatever waits for them must not go on to do so, as asyncio would have it."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupt)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()

"""Results as a table: for a terminal, or in Markdown to be pasted."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nimbus_server.bench.load import Result
from nimbus_server.bench.scenarios import Scenario

# What to do about some reasons for failing.
ADVICE = {
    "RATE_LIMITED": "RATE_LIMITED: the server limits requests per address. Start it with "
    "NIMBUS_RATE_LIMIT_ENABLED=false, or a higher NIMBUS_RATE_LIMIT_PER_MINUTE, to measure it.",
    "OVERLOADED": "OVERLOADED: more was sent at once than the server lets wait. Fewer --in-flight or --connections.",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; `numbers` names the columns that are aligned to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str]
    notes: Sequence[str] = ()

    def print(self, *, markdown: bool) -> None:
        """Print it on standard output."""
        if markdown:
            print(self.markdown())  # noqa: T201
            return
        console = Console(highlight=False, markup=False, emoji=False, width=None if Console().is_terminal else 200)
        table = Table(title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column, justify="right" if column in self.numbers else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note)

    def markdown(self) -> str:
        """The table as a Markdown table, with title and notes around it."""
        head = [self.columns, ["---:" if column in self.numbers else "---" for column in self.columns]]
        lines = ["| " + " | ".join(row) + " |" for row in (*head, *self.rows)]
        return "\n".join([self.title, "", *lines, *(f"\n{note}" for note in self.notes)])


def sheet_of(results: Sequence[tuple[Scenario, Result]]) -> Sheet:
    """What `nimbus bench` shows."""
    busiest = max((result.client_cores for _, result in results), default=0)
    reasons = {reason for _, result in results for reason in result.errors}
    return Sheet(
        f"Nimbus, measured from a machine with {machine()}",
        ("what", "events/s", "calls/s", "p50 ms", "p99 ms", "errors"),
        [_row(scenario, result) for scenario, result in results],
        numbers=("events/s", "calls/s", "p50 ms", "p99 ms"),
        notes=[
            f"The client itself took up to {busiest:.2f} of a core.",
            *(advice for reason, advice in ADVICE.items() if reason in reasons),
        ],
    )


def machine() -> str:
    """This machine in a few words, such as `2 cores (AMD EPYC)`."""
    cores, model = os.cpu_count() or 1, platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return f"{cores} core{'s' * (cores > 1)}" + (f" ({model})" if model else "")


def milliseconds(seconds: float) -> str:
    """With a digit after the point where that says anything."""
    return f"{seconds * 1000:,.0f}" if seconds >= 0.1 else f"{seconds * 1000:,.1f}"


def _row(scenario: Scenario, result: Result) -> tuple[str, ...]:
    return (
        scenario.name,
        f"{result.events_per_second:,.0f}" if scenario.sends_events else "",
        f"{result.calls_per_second:,.0f}",
        milliseconds(result.percentile(50)) if result.latencies else "",
        milliseconds(result.percentile(99)) if result.latencies else "",
        ", ".join(f"{reason} {count:,}" for reason, count in result.errors.most_common()) or "0",
    )

"""Answers for people: a table, and a small chart."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import plotext
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nimbus.v1.funnel_pb2 import FunnelStep, QueryFunnelResponse
from nimbus.v1.paths_pb2 import QueryPathsResponse
from nimbus.v1.retention_pb2 import QueryRetentionResponse
from nimbus.v1.trend_pb2 import QueryTrendResponse, TrendSeries
from nimbus_server.terminal import visible

BAR_WIDTH = 30
CHART_HEIGHT = 14
COLORS = ("blue", "red", "green", "magenta", "cyan", "orange", "gray", "blue+")
MISSING = "-"


class Show:
    """Shows answers on standard output; `timezone` is that of the question."""

    def __init__(self, timezone: str) -> None:
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._zone = ZoneInfo(timezone or "UTC")

    def trend(self, answer: QueryTrendResponse) -> None:
        """A row a bucket, a column a line, and a chart of the first lines."""
        lines = [*answer.series, *answer.compared]
        table = self._table("", *(self._title(line) for line in lines))
        for number, points in enumerate(zip(*(line.points for line in lines), strict=False)):
            ts = answer.series[0].points[number].ts
            table.add_row(self._when(ts), *(_number(p.value if p.HasField("value") else None) for p in points))
        table.add_section()
        table.add_row("total", *(_number(line.total if line.HasField("total") else None) for line in lines))
        self._print(table)
        drawn = [line for line in answer.series if len(line.points) > 1][: len(COLORS)]
        if drawn and self._console.is_terminal:
            self._chart(drawn)

    def funnel(self, answer: QueryFunnelResponse) -> None:
        """The steps with a bar each; then those of each group, and of each bucket."""
        self._steps("", answer.steps)
        for group in answer.groups:
            self._steps(group.value, group.steps)
        for bucket in answer.buckets:
            self._steps(self._when(bucket.ts), bucket.steps)

    def retention(self, answer: QueryRetentionResponse) -> None:
        """A row a cohort; periods that are not over are marked with *."""
        periods = max((len(cohort.returned) for cohort in answer.cohorts), default=0)
        table = self._table("cohort", "people", *map(str, range(periods)))
        for cohort in answer.cohorts:
            if cohort.values:
                cells = [_number(None if value != value else value) for value in cohort.values]  # noqa: PLR0124 - NaN
            else:
                cells = [_share(count, cohort.size) for count in cohort.returned]
            shown = [cell if complete else f"{cell}*" for cell, complete in zip(cells, cohort.complete, strict=True)]
            table.add_row(self._when(cohort.start), f"{cohort.size:,.0f}", *shown)
        table.add_section()
        has_values = any(cohort.values for cohort in answer.cohorts)
        mean = [MISSING if m < 0 and not has_values else _number(m) if has_values else f"{m:.1%}" for m in answer.mean]
        table.add_row("mean", "", *mean)
        self._print(table)

    def paths(self, answer: QueryPathsResponse) -> None:
        """The edges of each step, the most frequent first."""
        table = self._table("step", "from", "to", "paths", "people")
        for edge in answer.edges:
            start = MISSING if edge.is_other else getattr(edge, "from")
            table.add_row(
                str(edge.step), self._text(start), self._text(edge.to), f"{edge.paths:,.0f}", f"{edge.people:,.0f}"
            )
        table.add_section()
        for end in answer.ends:
            table.add_row(str(end.step), "(end)", "", f"{end.paths:,.0f}", f"{end.people:,.0f}")
        self._print(table)

    def _steps(self, title: str, steps: Sequence[FunnelStep]) -> None:
        table = self._table(title or "step", "count", "of first", "of previous", "median", "")
        for step in steps:
            share = step.of_first if step.HasField("of_first") else 0.0
            table.add_row(
                self._text(step.label),
                f"{step.count:,.0f}",
                f"{step.of_first:.1%}" if step.HasField("of_first") else MISSING,
                f"{step.of_previous:.1%}" if step.HasField("of_previous") else MISSING,
                _duration(step.median_seconds) if step.HasField("median_seconds") else MISSING,
                self._text("█" * round(share * BAR_WIDTH))
                if self._console.encoding.startswith("utf")
                else "#" * round(share * BAR_WIDTH),
            )
        self._print(table)

    def _chart(self, lines: Sequence[TrendSeries]) -> None:
        plotext.clear_figure()
        plotext.theme("clear")
        plotext.plotsize(min(self._console.width, 100), CHART_HEIGHT)
        for line, color in zip(lines, COLORS, strict=False):
            values = [point.value if point.HasField("value") else 0.0 for point in line.points]
            plotext.plot(list(range(len(values))), values, label=self._title(line), color=color)
        places = sorted({0, len(lines[0].points) // 2, len(lines[0].points) - 1})
        plotext.xticks(places, [self._when(lines[0].points[place].ts) for place in places])
        self._console.print(Text.from_ansi(plotext.build()), soft_wrap=True)

    def _table(self, *columns: str) -> Table:
        table = Table(box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(self._text(column), justify="left" if number == 0 else "right", overflow="fold")
        return table

    def _title(self, line: TrendSeries) -> str:
        return self._text(" / ".join((line.label, *line.breakdown)))

    def _text(self, text: str) -> str:
        return visible(text, self._console.encoding)

    def _when(self, ts: Timestamp) -> str:
        at = ts.ToDatetime(UTC).astimezone(self._zone)
        return f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%d %H:%M}"

    def _print(self, table: Table) -> None:
        if not self._console.is_terminal:
            self._console.width = 10_000
        self._console.print(table)
        self._console.print()


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.2f}"


def _share(count: float, size: float) -> str:
    return f"{count / size:.1%}" if size else MISSING


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"

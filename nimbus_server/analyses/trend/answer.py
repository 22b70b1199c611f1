"""The question QueryTrend: what it reads, and how the rows of its statements become the response."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from nimbus.v1.people_pb2 import TrendCell
from nimbus.v1.trend_pb2 import QueryTrendRequest, QueryTrendResponse, TrendPoint, TrendSeries
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.analyses.trend import sql
from nimbus_server.analyses.trend.cell import people_of_cell
from nimbus_server.analyses.trend.plan import NUMERIC, RATIOS, ZERO_WHERE_EMPTY, Period, Plan, Series
from nimbus_server.analyses.trend.request import read_plan
from nimbus_server.clock import moment
from nimbus_server.rpc.fields import timestamp

UNSET = "unset"
OTHER = "other"

# By number of the series, rank of the combination, and number of the bucket, None for the whole range.
_Cells = dict[tuple[int, int, int | None], Any]


@dataclass(slots=True)
class _Found:
    """What the rows of a period say: its cells, how many events each line ignores, and which ranks have events."""

    values: _Cells = field(default_factory=dict)
    ignored: dict[tuple[int, int], int] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)


class Trend:
    """A question of QueryTrend."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def semantics(self) -> Mapping[str, str]:
        """The rules in force, by the names of the request's fields."""
        return self._plan.semantics

    @property
    def needs(self) -> Needs:
        """The events of both ranges and of whatever lies between them; all names where sessions are looked for."""
        plan = self._plan
        ranges = [period.range for period in (plan.period, plan.compared) if period]
        names = [None if series.is_of_sessions else series.selector.names for series in plan.series]
        known = [some for some in names if some is not None]
        measured = [series.measured for series in plan.series if series.measured]
        return Needs(
            start=min(part.start for part in ranges),
            end=max(part.end for part in ranges),
            names=frozenset().union(*known) if len(known) == len(names) else None,
            properties=frozenset([*plan.breakdowns, *measured]).union(*(s.selector.properties for s in plan.series)),
        )

    def answer(self, ask: Ask, as_of: AsOf) -> QueryTrendResponse:
        """The response, from one to three statements for each range."""
        plan = self._plan
        top: list[sql.Values] = [()]
        if sql.is_ranked_at_once(plan):
            width = len(plan.breakdowns)
            rows = sorted(ask(sql.ranked_sql(plan)))
            top = [row[2 : 2 + width] for row in rows if row[0] < plan.breakdown_limit]
            found = self._found([(*row[:2], *row[2 + width :]) for row in rows])
        else:
            if plan.breakdowns:
                top = ask(sql.top_sql(plan))
            found = self._ask(ask, plan.period, top)
        compared = self._ask(ask, plan.compared, top) if plan.compared else _Found()
        combinations: list[sql.Values | None] = [*top]
        if len(top) in found.ranks | compared.ranks:
            combinations.append(None)
        return QueryTrendResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            semantics=plan.semantics,
            series=self._lines(found, plan.period, combinations),
            compared=self._lines(compared, plan.compared, combinations) if plan.compared else (),
        )

    def people(self, cell: TrendCell) -> str:
        """SQL with one column `uid`: the people behind a cell. Raises NimbusError with FIELD_INVALID."""
        return people_of_cell(self._plan, cell)

    def _ask(self, ask: Ask, period: Period, top: Sequence[sql.Values]) -> _Found:
        found = self._found(ask(sql.cells_sql(self._plan, period, top)))
        if any(series.is_of_sessions for series in self._plan.series):
            for rank, bucket, number, count in ask(sql.sessions_sql(self._plan, period, top)):
                found.values[number, rank, bucket] = count
        return found

    def _found(self, rows: Sequence[tuple[Any, ...]]) -> _Found:
        found = _Found()
        for rank, bucket, *columns in rows:
            found.ranks.add(rank)
            values = iter(columns)
            for number, series in enumerate(self._plan.series):
                own = list(islice(values, series.columns))
                if not own:
                    continue
                if series.measure in NUMERIC and bucket is None:
                    found.ignored[number, rank] = int(own[-1])
                value = own[0]
                if series.measure in RATIOS:
                    value = value / own[1] if own[1] else None
                found.values[number, rank, bucket] = value
        return found

    def _lines(self, found: _Found, period: Period, combinations: Sequence[sql.Values | None]) -> list[TrendSeries]:
        starts = period.buckets.starts if period.buckets else ()
        times = [timestamp(moment(start)) for start in starts]
        cells: list[int | None] = [*range(len(starts)), None]
        numbers = {
            (number, rank): [_number(series, found.values.get((number, rank, cell))) for cell in cells]
            for number, series in enumerate(self._plan.series)
            for rank in range(len(combinations))
        }
        lines = []
        for number, series in enumerate(self._plan.series):
            for rank, values in enumerate(combinations):
                line = self._line(series.selector.label, values, times, numbers[number, rank])
                line.ignored = found.ignored.get((number, rank), 0)
                lines.append(line)
        for formula in self._plan.formulas:
            for rank, values in enumerate(combinations):
                columns = zip(*(numbers[number, rank] for number in range(len(self._plan.series))), strict=True)
                results = [formula.formula.value(column) for column in columns]
                lines.append(self._line(formula.label, values, times, results))
        return lines

    def _line(
        self, label: str, values: sql.Values | None, times: Sequence[Any], numbers: Sequence[float | None]
    ) -> TrendSeries:
        *points, total = numbers
        line = TrendSeries(
            label=label,
            points=[TrendPoint(ts=ts, value=value) for ts, value in zip(times, points, strict=True)],
            total=total,
        )
        if values is None:
            line.is_other = True
            line.breakdown.extend([OTHER] * len(self._plan.breakdowns))
        else:
            line.breakdown.extend(UNSET if value is None else value for value in values)
            line.unset.extend(index for index, value in enumerate(values) if value is None)
        return line


def read(request: QueryTrendRequest, asked: Asked) -> Trend:
    """The question of a request. Raises NimbusError as `read_plan` does."""
    return Trend(read_plan(request, asked))


def _number(series: Series, value: Any) -> float | None:
    if value is None:
        return 0.0 if series.measure in ZERO_WHERE_EMPTY else None
    # Beyond the range of a double.
    return float(value) if math.isfinite(value) else None

"""The question QueryFunnel: what it reads, and how the rows of its statement become the response."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nimbus.v1.funnel_pb2 import (
    FunnelBucket,
    FunnelGroup,
    FunnelStep,
    QueryFunnelRequest,
    QueryFunnelResponse,
    TimeToConvert,
)
from nimbus.v1.people_pb2 import FunnelCell
from nimbus_server.analyses.funnel import sql
from nimbus_server.analyses.funnel.cell import people_of_cell
from nimbus_server.analyses.funnel.plan import SESSIONS, STRICT, Plan
from nimbus_server.analyses.funnel.request import read_plan
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.clock import SECOND, moment
from nimbus_server.rpc.fields import timestamp

UNSET = "unset"
OTHER = "other"


class Funnel:
    """A question of QueryFunnel."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def semantics(self) -> Mapping[str, str]:
        """The rules in force, by the names of the request's fields."""
        return self._plan.semantics

    @property
    def needs(self) -> Needs:
        """The events of the steps and the exclusions; all names where other events of the person matter."""
        plan = self._plan
        names = [selector.names for selector in plan.selectors]
        known = [some for some in names if some is not None]
        is_of_all = len(known) < len(names) or plan.order == STRICT or plan.counting == SESSIONS
        broken_down = [plan.breakdown.measured] if plan.breakdown else []
        return Needs(
            start=plan.range.start,
            end=plan.reads_until,
            names=None if is_of_all else frozenset().union(*known),
            properties=frozenset([*plan.held, *broken_down]).union(*(s.properties for s in plan.selectors)),
        )

    def answer(self, ask: Ask, as_of: AsOf) -> QueryFunnelResponse:
        """The response, from one statement."""
        plan = self._plan
        rows: dict[str, list[tuple[Any, ...]]] = {"all": [], "group": [], "bucket": [], "bin": []}
        for kind, *row in ask(sql.answer_sql(plan)):
            rows[kind].append(tuple(row))
        response = QueryFunnelResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            semantics=plan.semantics,
            steps=self._steps(rows["all"][0][5:]),
            time_to_convert=_time_to_convert(rows["bin"]),
            groups=[self._group(*row) for row in rows["group"]],
        )
        if plan.buckets:
            found = {row[0]: row[5:] for row in rows["bucket"]}
            empty = (0, None, None, None) * len(plan.steps)
            response.buckets.extend(
                FunnelBucket(ts=timestamp(moment(start)), steps=self._steps(found.get(number, empty)))
                for number, start in enumerate(plan.buckets.starts)
            )
        return response

    def people(self, cell: FunnelCell) -> str:
        """SQL with one column `uid`: the people behind a cell. Raises NimbusError with FIELD_INVALID."""
        return people_of_cell(self._plan, cell)

    def _group(self, rank: int, value: str | None, *columns: Any) -> FunnelGroup:
        steps = self._steps(columns[3:])
        if rank == sql.OTHER:
            return FunnelGroup(value=OTHER, steps=steps, is_other=True)
        return FunnelGroup(value=UNSET if value is None else value, steps=steps, is_unset=value is None)

    def _steps(self, columns: Sequence[Any]) -> list[FunnelStep]:
        counts = columns[::4]
        steps = []
        for number, selector in zip(self._plan.numbers, self._plan.steps, strict=True):
            count, median, mean, from_first = columns[4 * number - 4 : 4 * number]
            before = counts[self._plan.before(number) - 1] if number > 1 else count
            steps.append(
                FunnelStep(
                    label=selector.label,
                    count=count,
                    of_previous=_share(count, before),
                    of_first=_share(count, counts[0]),
                    median_seconds=_seconds(median),
                    mean_seconds=_seconds(mean),
                    median_seconds_from_first=_seconds(from_first),
                )
            )
        return steps


def read(request: QueryFunnelRequest, asked: Asked) -> Funnel:
    """The question of a request. Raises NimbusError as `read_plan` does."""
    return Funnel(read_plan(request, asked))


def _time_to_convert(rows: Iterable[tuple[Any, ...]]) -> TimeToConvert:
    counts, edges = [0] * sql.BINS, []
    for number, _, shortest, longest, count, *_ in rows:
        counts[number] = count
        if shortest == longest:
            return TimeToConvert(edges_seconds=[shortest / SECOND, shortest / SECOND + 1], counts=[count])
        edges = [(shortest + (longest - shortest) * edge / sql.BINS) / SECOND for edge in range(sql.BINS + 1)]
    return TimeToConvert(edges_seconds=edges, counts=counts if edges else ())


def _share(count: int, whole: int) -> float | None:
    return count / whole if whole else None


def _seconds(micros: float | None) -> float | None:
    return None if micros is None else micros / SECOND

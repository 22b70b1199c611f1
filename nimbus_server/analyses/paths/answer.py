"""QueryPaths as a question: its plan, its rows, its answer."""

from collections.abc import Mapping

from nimbus.v1.paths_pb2 import PathEdge, PathEnd, QueryPathsRequest, QueryPathsResponse
from nimbus.v1.people_pb2 import PathCell
from nimbus_server.analyses.paths import sql
from nimbus_server.analyses.paths.plan import Plan
from nimbus_server.analyses.paths.request import read_plan
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.fields import int_field, timestamp


class Paths:
    """What people do after, or did before, the events of an anchor."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def semantics(self) -> Mapping[str, str]:
        """The rules in force, by the names of the request's fields."""
        return self._plan.semantics

    @property
    def needs(self) -> Needs:
        """The events that it reads: those of the range, and as far from it as paths reach."""
        plan = self._plan
        names = None
        # Sessions are made of events of every name.
        if plan.within is not None and plan.anchor.names is not None and plan.nodes.names is not None:
            names = plan.anchor.names | plan.nodes.names
        return Needs(
            start=plan.range.start - (plan.reach if plan.backwards else 0),
            end=plan.range.end + (0 if plan.backwards else plan.reach),
            names=names,
            properties=plan.anchor.properties | plan.nodes.properties | {plan.node},
        )

    def answer(self, ask: Ask, as_of: AsOf) -> QueryPathsResponse:
        """The response."""
        plan = self._plan
        response = QueryPathsResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            semantics=plan.semantics,
            ends=[PathEnd(step=step) for step in range(plan.steps + 1)],
        )
        for step, source, to, people, paths, is_end in ask(sql.answer_sql(plan)):
            counts = {"step": step, "people": people, "paths": paths}
            if is_end:
                response.ends[step].CopyFrom(PathEnd(**counts))
            else:
                response.edges.append(PathEdge(to=to, is_other=source is None, **counts, **{"from": source}))
        return response

    def people(self, cell: PathCell) -> str:
        """SQL with one column `uid`: the people behind an edge. Raises NimbusError with FIELD_INVALID."""
        step = int_field("path_cell.step", cell.step, 1, self._plan.steps)
        source = str(getattr(cell, "from"))  # a word of Python
        for field, node in (("from", source), ("to", cell.to)):
            if "\0" in node or (node and cell.is_other):
                raise field_error(
                    Reason.FIELD_INVALID,
                    f"path_cell.{field}",
                    f"path_cell.{field} must have no NUL, and be left out beside is_other.",
                )
        if cell.is_other:
            return sql.other_people_sql(self._plan, step)
        return sql.people_sql(self._plan, step, source, cell.to)


def read(request: QueryPathsRequest, asked: Asked) -> Paths:
    """The question in a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID, and the path of what is wrong.
    """
    return Paths(read_plan(request, asked))

"""Questions about many events, beside the scan of the columns that they need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from goals import P50, Figure, compare
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from lab import Lab, Turn, say
from people_project import PeopleProject, days_of, people_project

from nimbus.v1 import funnel_pb2, paths_pb2, retention_pb2, trend_pb2
from nimbus_server.analyses.question import Ask, AsOf, Needs, Question
from nimbus_server.bench.calls import grpc_ingest
from nimbus_server.bench.events import Requests, as_proto
from nimbus_server.bench.failures import failure_of
from nimbus_server.bench.load import Result, Send, drive
from nimbus_server.bench.target import Target
from nimbus_server.clock import moment

REQUESTS: dict[str, Callable[..., Message]] = {
    "QueryTrend": trend_pb2.QueryTrendRequest,
    "QueryFunnel": funnel_pb2.QueryFunnelRequest,
    "QueryRetention": retention_pb2.QueryRetentionRequest,
    "QueryPaths": paths_pb2.QueryPathsRequest,
}
FUNNEL_RPC = "/nimbus.v1.AnalysisService/QueryFunnel"
ASK_SECONDS_MAX = 120
TEXTS = {"name", '"props.country:s"'}
TAIL_EVENTS, TAIL_BATCH = 10_000, 1000
DAY_MICROS, START_MICROS = 86_400_000_000, 1_761_955_200_000_000
WEEK_OF_EVENTS = 100_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the columns of `src` that it needs, and its goals; a ratio of None is not asked for."""

    what: str
    rpc: str
    fields: dict[str, Any]
    columns: str
    seconds_max: float
    ratio_max: float | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class ColumnScan:
    """Reads every value of some columns, of the events that a question reads."""

    needs: Needs
    columns: str

    def answer(self, ask: Ask, as_of: AsOf) -> Message:
        """Nothing, but only once all is read."""
        # Texts are read, but not compared, which would take longer than some questions.
        values = (f"strlen({name})" if name in TEXTS else name for name in self.columns.split())
        ask(f"SELECT {', '.join(f'max({value})' for value in values)} FROM src")
        return trend_pb2.QueryTrendResponse(as_of_position=as_of.position)


def steps(*names: str) -> list[dict[str, Any]]:
    """Steps of a funnel."""
    return [{"selector": {"names": [name]}} for name in names]


def funnel(entry: str, *names: str) -> dict[str, Any]:
    """A funnel of a week's windows."""
    return {"steps": steps(*names), "within": "7d", "entry": f"FUNNEL_ENTRY_{entry}"}


THREE = ("page_view", "add_to_cart", "purchase")
FIVE = ("page_view", "search", "view_item", "add_to_cart", "purchase")
COUNTRIES = {"breakdowns": ["props.country"], "breakdown_limit": 20}
PEOPLE = {"measure": "TREND_MEASURE_PEOPLE"}
RETURNS = {"start": {"names": ["signup"]}, "return": {"names": ["page_view"]}, "periods": 14}
CASES = [
    Case("trend an hour", "QueryTrend", {"series": [{}], "bucket": "1h"}, "t name", 0.25, 1.3),
    Case("trend, top 20", "QueryTrend", {"series": [{}], **COUNTRIES}, 'name "props.country:s"', 0.25, 1.5),
    Case("people a day", "QueryTrend", {"series": [PEOPLE], "bucket": "1d"}, "t name uid", 0.25, 2.5),
    Case("funnel of 3, FIRST", "QueryFunnel", funnel("FIRST", *THREE), "t seq name uid", 0.35),
    Case("funnel of 3, ANY", "QueryFunnel", funnel("ANY", *THREE), "t seq name uid", 0.6),
    Case("funnel of 5, ANY", "QueryFunnel", funnel("ANY", *FIVE), "t seq name uid", 1),
    Case("retention, 14 days", "QueryRetention", RETURNS, "t seq name uid", 0.5),
    Case("paths, 3 steps", "QueryPaths", {"anchor": {"names": ["login"]}, "steps": 3}, "t seq name uid", 1.5),
]
LONG_CASES = [
    Case("funnel of 3, ANY, one week", "QueryFunnel", funnel("ANY", *THREE), "t seq name uid", 0.25, days=7),
    Case("funnel of 3, ANY, all of it", "QueryFunnel", funnel("ANY", *THREE), "t seq name uid", 5),
]


async def question_latencies(lab: Lab) -> list[Figure]:
    """Every case; with 100 million events the long ones alone."""
    cases = LONG_CASES if lab.effort.rows >= WEEK_OF_EVENTS else CASES
    async with people_project(lab) as project:
        return [await _figure(lab, project, case) for case in cases]


async def fresh_latency(lab: Lab) -> Figure:
    """An answer with the events acknowledged just before, beside one of a log that is in segments to its end."""
    async with people_project(lab) as exported, people_project(lab) as project:
        requests = Requests(as_proto, project.target.project_id, TAIL_BATCH)
        async with grpc_ingest(project.target, requests, 1) as (send,):
            await drive([send], ASK_SECONDS_MAX, events_max=TAIL_EVENTS)
        name = f"trend an hour, {project.position:,} events, with min_position and {TAIL_EVENTS:,} events of tail"
        without = _turn(lab, exported, _question(exported, CASES[0]))
        behind = _turn(lab, project, _question(project, CASES[0]), project.position + TAIL_EVENTS)
        references, results = await lab.alternate(name, without, behind)
    figure = compare(name, P50, "without a tail", references, results)
    figure.expect("+ < 20 ms", P50.median(results) - P50.median(references) < 0.02)
    return figure


def funnels(channel: grpc.aio.Channel, target: Target) -> Send:
    """Asks for a funnel of what is sent to the target, over gRPC."""
    fields = {"project_id": target.project_id, "range": {"last": "1d"}, **funnel("ANY", "page_view", "purchase")}
    raw = ParseDict(fields, funnel_pb2.QueryFunnelRequest()).SerializeToString()
    method = channel.unary_unary(FUNNEL_RPC)

    async def send() -> int:
        try:
            await method(raw, metadata=target.headers("POST", FUNNEL_RPC, raw), timeout=ASK_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        return 1

    return send


async def _figure(lab: Lab, project: PeopleProject, case: Case) -> Figure:
    question = _question(project, case)
    scan = ColumnScan(question.needs, case.columns)
    name = f"{case.what}, {lab.effort.rows:,} events"
    references, results = await lab.alternate(name, _turn(lab, project, scan), _turn(lab, project, question))
    figure = compare(name, P50, f"scan of {case.columns}", references, results)
    if case.ratio_max is not None:
        figure.expect(f"≤ {case.ratio_max:g}", figure.ratio <= case.ratio_max)
    figure.expect(f"p50 < {case.seconds_max * 1000:g} ms", P50.median(results) < case.seconds_max)
    say(" | ".join(figure.row))
    return figure


def _question(project: PeopleProject, case: Case) -> Question:
    days = case.days or days_of(project.position)
    asked_range = {
        "start": moment(START_MICROS).isoformat(),
        "end": moment(START_MICROS + days * DAY_MICROS).isoformat(),
    }
    return project.read(case.rpc, ParseDict({"range": asked_range, **case.fields}, REQUESTS[case.rpc]()))


def _turn(lab: Lab, project: PeopleProject, question: Question, min_position: int = 0) -> Turn:
    async def ask() -> int:
        await project.answer(question, min_position)
        return 1

    async def turn() -> Result:
        return await drive([ask], lab.effort.seconds)

    return turn

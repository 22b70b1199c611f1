"""The commands of `nimbus query`."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from nimbus_server import settings as settings_module
from nimbus_server.commands import DataDir, fail
from nimbus_server.errors import StartupError
from nimbus_server.terminal import say

if TYPE_CHECKING:  # these load gRPC, for which `nimbus --help` need not wait
    from google.protobuf.message import Message


app = typer.Typer(
    help="Ask about a project's events. Every answer is exact and holds every acknowledged event.", no_args_is_help=True
)

WHERE_HELP = (
    "Only events that match: props.plan=pro, props.amount>=10, props.page~/cart (contains), name^check (starts with), "
    "!=, !~, props.plan (is set) or !props.plan; again for more, which must all hold. Numbers, true and false are "
    'taken as such; in quotes, "5", they are texts.'
)

Project = Annotated[UUID, typer.Argument(help="Whose events.")]
Last = Annotated[str | None, typer.Option(help="The last of whole units: 30d, 12h, 3mo.", show_default="30d")]
Start = Annotated[str | None, typer.Option(help="First moment, such as 2026-01-31T12:00, in place of --last.")]
End = Annotated[str | None, typer.Option(help="End, not included.", show_default="now")]
Timezone = Annotated[str, typer.Option(help="IANA time zone.", show_default="the project's")]
Conditions = Annotated[list[str] | None, typer.Option(help=WHERE_HELP, metavar="CONDITION")]
PresetName = Annotated[
    Literal["MIXPANEL", "POSTHOG", "AMPLITUDE"] | None, typer.Option(help="Whose rules fill in what is not given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")]
Explain = Annotated[bool, typer.Option("--explain", help="Show the SQL that answers it, too; on --data-dir alone.")]
Target = Annotated[
    str | None, typer.Option(help="Nimbus elsewhere: localhost:50051.", show_default="that on --data-dir")
]
KeyId = Annotated[str | None, typer.Option(help="A key for it; the secret is in NIMBUS_TAIL_SECRET.")]
Tls = Annotated[bool, typer.Option("--tls", help="It speaks TLS.")]
Measures = Literal[
    "EVENTS", "PEOPLE", "EVENTS_PER_PERSON", "SESSIONS", "SUM", "AVERAGE", "MINIMUM", "MAXIMUM", "MEDIAN", "P90", "P95",
    "P99", "DISTINCT",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """How an answer is shown, and whether its SQL is."""

    as_json: bool
    sql: bool


@app.command()
def trend(
    project: Project,
    event: Annotated[
        list[str] | None, typer.Option(help="Name of an event; again for more lines.", show_default="all")
    ] = None,
    measure: Annotated[Measures, typer.Option(help="What is measured.")] = "EVENTS",
    property: Annotated[str, typer.Option(help="Whose number is measured, such as props.amount.")] = "",  # noqa: A002
    bucket: Annotated[str, typer.Option(help="1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1q, 1y, or none.")] = "1d",
    by: Annotated[list[str] | None, typer.Option(help="Break down by this property; up to 3.")] = None,
    formula: Annotated[list[str] | None, typer.Option(help="Computed of the lines A, B, ...: A / B * 100.")] = None,
    where: Conditions = None,
    last: Last = None,
    start: Start = None,
    end: End = None,
    timezone: Timezone = "",
    as_json: AsJson = False,
    explain: Explain = False,
    data_dir: DataDir = None,
    grpc_target: Target = None,
    key_id: KeyId = None,
    tls: Tls = False,
) -> None:
    """Numbers over time: a line for each --event, a table and a chart."""
    from nimbus.v1.trend_pb2 import TrendFormula
    from nimbus_client.questions import select, series, trend_request
    from nimbus_server.query.where import read_where

    def request() -> "Message":
        filters = read_where(where or [])
        names = [(name,) for name in event] if event else [()]
        lines = [series(select(*some, where=filters), measure, property) for some in names]
        options: Any = _options(last, start, end, timezone)
        width = "" if bucket == "none" else bucket
        formulas = [TrendFormula(expression=text) for text in formula or ()]
        options |= {"bucket": width, "breakdowns": by or [], "formulas": formulas}
        return trend_request(str(project), lines, options)

    _answer(
        project, "QueryTrend", "trend", request, timezone, Shown(as_json, explain), data_dir, (grpc_target, key_id, tls)
    )


@app.command()
def funnel(
    project: Project,
    step: Annotated[list[str], typer.Option(help="Name of an event; once for each step, in order.")],
    within: Annotated[str, typer.Option(help="Longest time from the first step to the last.", show_default="14d")] = "",
    order: Annotated[Literal["ORDERED", "STRICT", "UNORDERED"] | None, typer.Option(help="Of the steps.")] = None,
    counting: Annotated[Literal["PEOPLE", "TOTALS", "SESSIONS"] | None, typer.Option(help="What is counted.")] = None,
    by: Annotated[str | None, typer.Option(help="A funnel for each value of this property at the first step.")] = None,
    where: Conditions = None,
    last: Last = None,
    start: Start = None,
    end: End = None,
    timezone: Timezone = "",
    preset: PresetName = None,
    as_json: AsJson = False,
    explain: Explain = False,
    data_dir: DataDir = None,
    grpc_target: Target = None,
    key_id: KeyId = None,
    tls: Tls = False,
) -> None:
    """Who goes from step to step, how long it takes, where they leave."""
    from nimbus.v1.funnel_pb2 import FunnelBreakdown
    from nimbus_client.questions import funnel_request, select
    from nimbus_server.query.where import read_where

    def request() -> "Message":
        filters = read_where(where or [])
        options: dict[str, Any] = {"within": within, "order": order, "counting": counting, "preset": preset}
        if by:
            options["breakdown"] = FunnelBreakdown(property=by)
        given: Any = _options(last, start, end, timezone) | {name: value for name, value in options.items() if value}
        return funnel_request(str(project), [select(name, where=filters) for name in step], given)

    _answer(
        project,
        "QueryFunnel",
        "funnel",
        request,
        timezone,
        Shown(as_json, explain),
        data_dir,
        (grpc_target, key_id, tls),
    )


@app.command()
def retention(
    project: Project,
    begin: Annotated[str | None, typer.Option(help="Name of the event that starts.", show_default="any")] = None,
    come_back: Annotated[str | None, typer.Option(help="Name of the event that returns.", show_default="any")] = None,
    unit: Annotated[Literal["HOUR", "DAY", "WEEK", "MONTH"], typer.Option(help="Of cohorts and periods.")] = "DAY",
    periods: Annotated[int, typer.Option(help="How many after period 0.")] = 7,
    where: Conditions = None,
    last: Last = None,
    start: Start = None,
    end: End = None,
    timezone: Timezone = "",
    preset: PresetName = None,
    as_json: AsJson = False,
    explain: Explain = False,
    data_dir: DataDir = None,
    grpc_target: Target = None,
    key_id: KeyId = None,
    tls: Tls = False,
) -> None:
    """Who comes back: a row for those who began in each unit. Periods marked * are not over."""
    from nimbus_client.questions import retention_request, select
    from nimbus_server.query.where import read_where

    def request() -> "Message":
        filters = read_where(where or [])
        options: dict[str, Any] = {"unit": unit, "periods": periods, "preset": preset}
        given: Any = _options(last, start, end, timezone) | {name: value for name, value in options.items() if value}
        selectors = [select(*([name] if name else []), where=filters) for name in (begin, come_back)]
        return retention_request(str(project), selectors[0], selectors[1], given)

    _answer(
        project,
        "QueryRetention",
        "retention",
        request,
        timezone,
        Shown(as_json, explain),
        data_dir,
        (grpc_target, key_id, tls),
    )


@app.command()
def paths(
    project: Project,
    anchor: Annotated[str, typer.Option(help="Name of the event where paths begin.")],
    before: Annotated[bool, typer.Option("--before", help="What people did before it, not after it.")] = False,
    steps: Annotated[int, typer.Option(help="How many events from the anchor.")] = 3,
    limit: Annotated[int, typer.Option(help="Edges shown for each step.")] = 10,
    node: Annotated[str, typer.Option(help="Property that names what is on the path.")] = "name",
    where: Conditions = None,
    last: Last = None,
    start: Start = None,
    end: End = None,
    timezone: Timezone = "",
    as_json: AsJson = False,
    explain: Explain = False,
    data_dir: DataDir = None,
    grpc_target: Target = None,
    key_id: KeyId = None,
    tls: Tls = False,
) -> None:
    """What people do next, or did before."""
    from nimbus_client.questions import paths_request, select
    from nimbus_server.query.where import read_where

    def request() -> "Message":
        options: dict[str, Any] = {"steps": steps, "limit": limit, "node": node}
        options["direction"] = "BEFORE" if before else "AFTER"
        given: Any = _options(last, start, end, timezone) | options
        return paths_request(str(project), select(anchor, where=read_where(where or [])), given)

    _answer(
        project, "QueryPaths", "paths", request, timezone, Shown(as_json, explain), data_dir, (grpc_target, key_id, tls)
    )


def _options(last: str | None, start: str | None, end: str | None, timezone: str) -> dict[str, Any]:
    """Range and zone. Raises StartupError."""
    from nimbus_server.times import read_time

    def moment(option: str, text: str) -> datetime:
        try:
            at = read_time(text)
        except ValueError as error:
            raise StartupError(f"{option} {text}: {error}.") from None
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    if last and (start or end):
        raise StartupError("Give --last, or --start with or without --end.")
    options: dict[str, Any] = {"timezone": timezone}
    if start or end:
        options |= {"start": moment("--start", start)} if start else {}
        return options | ({"end": moment("--end", end)} if end else {})
    return options | {"last": last or "30d"}


def _answer(
    project: UUID,
    rpc: str,
    kind: str,
    request: Any,
    timezone: str,
    shown: "Shown",
    data_dir: Path | None,
    where: tuple[str | None, str | None, bool],
) -> None:
    from google.protobuf.json_format import MessageToJson

    from nimbus_server.query.asking import Where, ask
    from nimbus_server.query.show import Show

    try:
        settings = settings_module.load(data_dir=data_dir)
        if shown.sql:
            answer = asyncio.run(_explained(settings, Where(*where), project, rpc, request()))
        else:
            answer = asyncio.run(ask(settings, Where(*where), project, rpc, request()))
    except (StartupError, ValueError) as error:
        fail(str(error))
    if shown.as_json:
        say(MessageToJson(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        getattr(Show(answer.semantics.get("timezone", timezone)), kind)(answer)


async def _explained(settings: Any, where: Any, project: UUID, rpc: str, request: Any) -> Any:
    """The answer, after the SQL that gave it. Raises StartupError."""
    from nimbus_server.analyst.explain import explain
    from nimbus_server.query.asking import response_class

    if where.grpc_target is not None:
        raise StartupError("--explain shows the SQL of the Nimbus on --data-dir: leave --grpc-target out.")
    statements, encoded = await explain(settings, project, rpc, request)
    for statement in statements:
        say(f"{statement.strip()};\n")
    return response_class(rpc).FromString(encoded)

"""The `nimbus` command."""

import os
import secrets as random
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from cryptography.fernet import Fernet
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from nimbus_server import settings as settings_module
from nimbus_server.commands import DataDir, fail, load, run
from nimbus_server.errors import StartupError
from nimbus_server.importer.cli import import_files
from nimbus_server.query.cli import app as query_app
from nimbus_server.segments.cli import app as segments_app
from nimbus_server.settings import PREFIX, Settings
from nimbus_server.terminal import escape_what_has_no_encoding, say, visible

app = typer.Typer(
    help="Event analytics that you run yourself. Settings are NIMBUS_* variables: `nimbus config` shows them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
envoy_app = typer.Typer(help="The edge that serves REST.", no_args_is_help=True)
app.add_typer(envoy_app, name="envoy")
app.add_typer(query_app, name="query")
app.add_typer(segments_app, name="segments")
app.command("import")(import_files)

Bind = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
HttpPort = Annotated[
    int | None, typer.Option(help="REST, gRPC, gRPC-web and /docs; 0 for a free one.", show_default="8000")
]
GrpcPort = Annotated[int | None, typer.Option(help="Native gRPC; 0 for a free one.", show_default="50051")]


def main() -> None:
    """Run the command that the arguments of this process name."""
    escape_what_has_no_encoding()
    app()


@app.command()
def up(
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="one a core")] = None,
    bind_address: Bind = None,
    analyst: Annotated[
        bool | None, typer.Option("--analyst/--no-analyst", help="Answer questions.", show_default="yes")
    ] = None,
) -> None:
    """Run everything on this machine: PostgreSQL, workers, an analyst and Envoy. Ctrl-C stops it."""
    from nimbus_server.local.up import up as run_stack

    settings = load(
        http_port=http_port,
        grpc_port=grpc_port,
        data_dir=data_dir,
        workers=workers,
        bind_address=bind_address,
        analyst=analyst,
    )
    raise typer.Exit(run(lambda: run_stack(settings)))


@app.command()
def serve(
    socket: Annotated[Path | None, typer.Option(help="Unix socket for Envoy; keep its folder private.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for native gRPC; left out, only the socket.")] = None,
    websocket_socket: Annotated[
        Path | None, typer.Option(help="Unix socket for Envoy's WebSockets; left out, there are none.")
    ] = None,
    analyst_socket: Annotated[
        Path | None, typer.Option(help="Socket of a `nimbus analyst`; left out, no question is answered.")
    ] = None,
    bind_address: Bind = None,
) -> None:
    """Run one server alone, for a container with Envoy beside it. SIGTERM drains it."""
    from nimbus_server import app as worker
    from nimbus_server.telemetry import logs

    settings = load(bind_address=bind_address, analyst_socket=analyst_socket)
    if socket is None and grpc_port is None:
        fail("`nimbus serve` needs --socket, --grpc-port, or both.")
    logs.configure(settings)

    def start() -> Coroutine[Any, Any, None]:
        settings_module.require_secrets(settings)
        return worker.serve(settings, worker.Addresses(socket, websocket_socket, grpc_port))

    run(start)


@app.command()
def analyst(
    socket: Annotated[Path, typer.Option(help="Unix socket for the workers of this host; keep its folder private.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where the log is kept as Parquet files, in segments/; keep it private.", show_default=".nimbus"
        ),
    ] = None,
) -> None:
    """Answer the questions that `nimbus serve` passes on. SIGTERM stops it.

    One process a host. It reads the database of NIMBUS_DATABASE_URL, keeps
    the log as Parquet files (see `nimbus segments`), and gives way to other
    processes (nice 10). Questions have the memory of NIMBUS_ANALYST_MEMORY
    together, and four times as much disk in segments/tmp, where it deletes
    what processes that were killed have left when it starts.
    """
    from nimbus_server.analyst import app as process
    from nimbus_server.telemetry import logs

    settings = load(data_dir=data_dir)
    if settings.database_url is None:
        fail("NIMBUS_DATABASE_URL must be set for `nimbus analyst`: it names the database that the workers use.")
    logs.configure(settings)
    run(lambda: process.serve(settings, socket))


@app.command()
def migrate(
    status: Annotated[bool, typer.Option("--status", help="Show what is applied and change nothing.")] = False,
) -> None:
    """Bring the database of NIMBUS_DATABASE_URL to this version's schema."""
    from nimbus_server.postgres import migrate as migrations

    settings = load()
    if settings.database_url is None:
        fail("NIMBUS_DATABASE_URL must be set: it names the database to migrate.")
    dsn = settings.database_url.get_secret_value()
    if status:
        for name, applied in run(lambda: migrations.status(dsn)):
            say(f"{'applied' if applied else 'MISSING'}  {name}")
        return
    applied_now = run(lambda: migrations.migrate(dsn))
    say(f"Applied {', '.join(applied_now)}." if applied_now else "Nothing to apply.")


@app.command()
def config(
    new_secrets: Annotated[
        bool, typer.Option("--new-secrets", help="Print fresh random secrets and nothing else.")
    ] = False,
) -> None:
    """Show the settings in force, secrets masked."""
    if new_secrets:
        say(f"NIMBUS_JWT_SECRET={random.token_urlsafe(48)}\nNIMBUS_SECRET_KEYS={Fernet.generate_key().decode()}")
        return
    settings = load()
    console = Console(markup=False, emoji=False)
    table = Table("variable", "value", "from", "meaning", box=None)
    for name, field in Settings.model_fields.items():
        source = "environment" if name in settings.model_fields_set else "default"
        value = visible(_masked(getattr(settings, name)), console.encoding)
        table.add_row(PREFIX + name.upper(), value, source, field.description)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for name in settings_module.unknown_variables():
        say(f"{name} is set, but means nothing to this version.", err=True)


@app.command()
def bench(
    url: Annotated[str, typer.Option(help="REST.")] = "http://127.0.0.1:8000",
    grpc_target: Annotated[str, typer.Option(help="Native gRPC, straight to the workers.")] = "127.0.0.1:50051",
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Time for each of the loads.")] = 5,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Connections that send single events.")] = 100,
    in_flight: Annotated[int, typer.Option(min=1, max=256, help="Batches that wait for their answer.")] = 8,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events in a batch.")] = 1000,
    project: Annotated[
        UUID | None,
        typer.Option(help="Send to this project and leave the events there.", show_default="a temporary one"),
    ] = None,
    key_id: Annotated[str | None, typer.Option(help="Its API key; the secret is in NIMBUS_BENCH_SECRET.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """Put load on a running Nimbus and show what it can do. Exits with 1 where calls failed."""
    from nimbus_server.bench.run import Options
    from nimbus_server.bench.run import bench as measure
    from nimbus_server.bench.scenarios import Load

    secret = os.environ.get("NIMBUS_BENCH_SECRET")
    if (project is None) != (key_id is None) or (project is not None and not secret):
        fail("A project of yours takes --project, --key-id and the key's secret in NIMBUS_BENCH_SECRET, all three.")
    key = (str(project), key_id, secret) if project and key_id and secret else None
    options = Options(url, grpc_target, seconds, Load(connections, in_flight, batch), key, markdown)
    raise typer.Exit(run(lambda: measure(options)))


@app.command()
def tail(
    project: Annotated[
        UUID | None, typer.Argument(help="Whose events to watch; left out, shows which there are.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help="Only events of this name; again for more names.")] = None,
    user: Annotated[str | None, typer.Option(help="Only events about this user.")] = None,
    anonymous: Annotated[str | None, typer.Option(help="Only events with this anonymous_id.")] = None,
    props: Annotated[str | None, typer.Option(help="Only events with these: a JSON object.")] = None,
    context: Annotated[str | None, typer.Option(help="Only events whose context has this: a JSON object.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Begin behind this position.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with what came then: 2026-01-31T12:00, or 90s, 10m, 2h, 7d ago.")
    ] = None,
    earliest: Annotated[bool, typer.Option("--earliest", help="Begin with the oldest event.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data_dir: DataDir = None,
    grpc_target: Annotated[
        str | None,
        typer.Option(help="Nimbus elsewhere, such as localhost:50051.", show_default="the one on --data-dir"),
    ] = None,
    key_id: Annotated[str | None, typer.Option(help="A key for it; the secret is in NIMBUS_TAIL_SECRET.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="It speaks TLS.")] = False,
) -> None:
    """Watch events as they come: position, time, name, user, props.

    An event without a user shows its anonymous_id.

    For the `nimbus up` that runs on --data-dir it needs no credentials: it
    reads the project's key there, and so must be run by the same user. For
    any other give --grpc-target, and a person's access token in NIMBUS_TOKEN
    or a key.

    It begins with what comes from now on, unless --after, --since or
    --earliest say otherwise. Times are those of this machine's zone; --since
    goes by when events came, which may be later than the time shown. While Nimbus is away it waits, and then goes on
    where it was. Events go to standard output, everything else to standard
    error.

    Exit status: 0 after --limit events, 1 if it could not go on, 130 if it
    was stopped, 141 if nobody reads its output any more.
    """
    from nimbus_server.tail.command import Options, which_project
    from nimbus_server.tail.command import tail as watch

    settings = load(data_dir=data_dir)
    if project is None:
        fail("Which PROJECT?" if grpc_target else str(run(lambda: which_project(settings))))
    options = Options(
        project,
        name or (),
        user,
        anonymous,
        props,
        context,
        after,
        since,
        earliest,
        as_json,
        limit,
        grpc_target,
        key_id,
        tls,
    )
    raise typer.Exit(run(lambda: watch(settings, options)))


@app.command()
def sql(
    project: Annotated[UUID, typer.Argument(help="Whose events.")],
    command: Annotated[str | None, typer.Option("-c", help="Run this, show what it gives, and end.")] = None,
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="json is an object a line.")
    ] = "table",
    data_dir: DataDir = None,
) -> None:
    """Ask in SQL: a read-only prompt over one project's events, for the operator.

    The view `events` has all events up to now: those in segments and those
    that are not there yet. The SQL is DuckDB's. There is no limit to rows; a
    statement has the memory of NIMBUS_ANALYST_MEMORY, and disk beyond it.
    Statements may also come from standard input. Ctrl-C stops one. The
    database is that of
    NIMBUS_DATABASE_URL, or else of the `nimbus up` that runs on --data-dir;
    the segments lie there too.
    """
    from nimbus_server.analyst.sql_prompt import run

    settings = load(data_dir=data_dir)
    try:
        raise typer.Exit(run(settings, project, command, form))
    except StartupError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def version() -> None:
    """Print the version."""
    from nimbus_server.version import VERSION

    say(VERSION)


@envoy_app.command()
def render(
    socket: Annotated[list[Path], typer.Option(help="Socket of a `nimbus serve`; once for each.")],
    websocket_socket: Annotated[
        list[Path] | None, typer.Option(help="WebSocket socket of a `nimbus serve`; once for each, or none.")
    ] = None,
    admin_socket: Annotated[Path, typer.Option(help="Socket for Envoy's own admin page.")] = Path("envoy-admin.sock"),
    http_port: HttpPort = None,
    bind_address: Bind = None,
) -> None:
    """Print the Envoy configuration for these settings."""
    from nimbus_server.local import envoy

    settings = load(http_port=http_port, bind_address=bind_address)
    try:
        rendered = envoy.render(settings, envoy.Sockets(socket, websocket_socket or [], admin_socket))
    except StartupError as error:
        fail(str(error))
    typer.echo(rendered)


def _masked(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(_masked(v) for v in value)
    return "" if value is None else str(value)

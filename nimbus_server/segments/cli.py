"""The commands of `nimbus segments`."""

from typing import Annotated
from uuid import UUID

import typer

from nimbus_server.commands import DataDir, load, run

app = typer.Typer(
    help="The log as Parquet files, from which the analyst answers. It can be made anew from the log at any time.",
    no_args_is_help=True,
)


@app.command()
def status(data_dir: DataDir = None) -> None:
    """Show how far the segments of each project are.

    Positions up to "exported" are in segments, the "lag" behind it is read
    from the log by each question. Rows and size are those of the files that
    questions read. The database is the one of NIMBUS_DATABASE_URL, or else of
    the `nimbus up` that runs on --data-dir.
    """
    from nimbus_server.segments.command import show_status

    settings = load(data_dir=data_dir)
    run(lambda: show_status(settings))


@app.command()
def rebuild(
    project: Annotated[UUID | None, typer.Argument(help="Whose segments; left out, those of all projects.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Give up segments, and have the analyst make them anew from the log.

    Safe at any time: questions under way finish on the old files, which are
    deleted ten minutes later.
    """
    from nimbus_server.segments.command import rebuild as give_up

    settings = load(data_dir=data_dir)
    run(lambda: give_up(settings, project))

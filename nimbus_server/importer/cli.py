"""The command `nimbus import`."""

from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer

from nimbus_server.commands import DataDir, load, run


def import_files(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="JSON Lines or CSV, gunzipped where needed: a file, a pipe, or - for standard input."
        ),
    ],
    project: Annotated[UUID, typer.Option(help="Whose history it is.")],
    form: Annotated[
        Literal["jsonl", "csv"] | None,
        typer.Option(
            "--format",
            help="jsonl or csv, whatever the names say.",
            show_default=".jsonl, .ndjson and .json are jsonl, .csv is csv",
        ),
    ] = None,
    rejected: Annotated[
        Path | None, typer.Option(help="Where refused lines go, with reasons.", show_default="FILE.rejected.jsonl")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What - or <(...) is called; once for each, in order.",
            show_default="stdin, stdin-2, ...",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Import history from files and pipes, straight into the database.

    That is the one of NIMBUS_DATABASE_URL, or else of the `nimbus up` that
    runs on --data-dir. Events get positions in the order of the lines, the
    files in the order given, at any age: only what is from before the year
    2000, or older than NIMBUS_RETENTION_DAYS, is refused, as is what exceeds
    the limits of POST /v1/events.

    After an interruption run the same command again, with the same file
    names: nothing is stored twice. An event is the same if its ts is the
    same, and its idempotency_key (with name and user_id, or anonymous_id
    where there is no user_id), or else its id (a UUID is kept, other text
    hashed), or else its file name (without folder and .gz), line number and
    line.

    A pipe is read once, to its end. It can't be resumed in the middle: run
    the command again with the same input from its beginning, and what is
    there already is passed over. That goes by the same rules, so events
    without idempotency_key and id need the same lines in the same places and
    the same name. A named pipe has its own; -, /dev/stdin, /dev/fd/N and
    <(...) have that of --name, which also tells the format, or else stdin,
    the next one stdin-2, in the order given: `zcat a.jsonl.gz | nimbus import
    - --name a.jsonl` is the same as `nimbus import a.jsonl.gz`. Give another
    --name for other data: without idempotency_key and id, equal lines in
    equal places of two inputs of the same name are one event. Refused lines
    go to NAME.rejected.jsonl, in the current folder unless NAME has one. If
    a writer dies in the middle of a line, what there is of the line is
    refused like any bad line. Lines are stored up to 8,000 at a time: what
    has been read of a pipe but not stored when it is stopped must be given
    again.

    JSON Lines: an object a line, with name, ts, props (or properties),
    context, user_id, anonymous_id, idempotency_key and id.

    CSV (RFC 4180): a header; the columns name, ts, user_id, anonymous_id,
    idempotency_key, id, props and context (a JSON object each) are the same,
    a column such as context.page.path is that place in the context, and every
    other column is a property of that name, both as text. Empty cells are
    left out. A row counts as the line on which it begins, and has at most
    524,288 bytes: a larger one is refused, to the end of its last cell. A
    quote in a cell that does not begin with one is text. No part of a cell in
    quotes is taken for a row: where a quote is never closed, text follows the
    quote that closes a cell, or a blank stands before the one that opens it,
    all lines from that row to the end of the file are refused. Mend the line
    that is named and run the same command again.

    Refused lines are JSON objects: file, line (the first one), lines (how
    many), field, reason, message and text, of which at most the first 524,288
    bytes are kept (then text_cut is true).

    ts is required: RFC 3339 (UTC if it names no offset), or unix seconds,
    from 1e11 on milliseconds.

    Exit status: 0 if all is stored, 1 if lines were refused or not all could
    be read, 130 if it was stopped.
    """
    from nimbus_server.importer.command import import_files as store
    from nimbus_server.importer.source import Format

    settings = load(data_dir=data_dir)
    form_given = Format(form) if form else None
    raise typer.Exit(run(lambda: store(settings, project, files, form_given, rejected, name or ())))

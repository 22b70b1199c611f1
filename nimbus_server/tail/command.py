"""`nimbus tail`: events as they come, until Ctrl-C, the limit, or whoever reads them goes away."""

import asyncio
import json
import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from nimbus_client import AsyncSubscription, NimbusError, RetryPolicy
from nimbus_client.progress import subscribe_request
from nimbus_server.errors import StartupError
from nimbus_server.importer.target import with_database
from nimbus_server.settings import Settings
from nimbus_server.tail.show import Show, lines_for_people, lines_for_programs
from nimbus_server.tail.source import Source, Streams, local_source, remote_source
from nimbus_server.tail.store import newest_projects
from nimbus_server.terminal import say, visible
from nimbus_server.times import read_time

DONE = 0
# As shells have it for a program that SIGPIPE ended.
UNREAD = 141
DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Options:
    """What to watch from where on, as it was typed, and how to show it."""

    project_id: UUID
    names: Sequence[str]
    user_id: str | None
    anonymous_id: str | None
    props: str | None
    context: str | None
    after_seq: int | None
    since: str | None
    earliest: bool
    as_json: bool
    limit: int | None
    grpc_target: str | None
    key_id: str | None
    tls: bool


async def tail(settings: Settings, options: Options) -> int:
    """Show events until it is over, and return the exit status. Raises StartupError where it can't go on."""
    source = await _source(settings, options)
    unread = asyncio.create_task(_nobody_reads())
    following = asyncio.create_task(_follow(source, options))
    try:
        await asyncio.wait({following, unread}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            await following
            return DONE
    except BrokenPipeError:
        pass
    finally:
        following.cancel()
        unread.cancel()
    # What is buffered still would fail when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UNREAD


async def which_project(settings: Settings) -> StartupError:
    """What to tell someone who has named none. Raises StartupError where no Nimbus runs there."""
    found = await newest_projects(with_database(settings))
    if not found:
        return StartupError("There is no project yet: create one with POST /v1/projects.")
    lines = [f"  {project_id}  {visible(name)}" for project_id, name in found]
    return StartupError("\n".join(("Which project? The newest are:", *lines)))


async def _nobody_reads() -> None:
    """Return when the other end of the pipe is closed: otherwise only the next event would tell."""
    loop, output = asyncio.get_running_loop(), sys.stdout.fileno()
    closed = asyncio.Event()

    def on_event() -> None:
        loop.remove_reader(output)
        closed.set()

    if stat.S_ISFIFO(os.fstat(output).st_mode):
        loop.add_reader(output, on_event)
    await closed.wait()


async def _source(settings: Settings, options: Options) -> Source:
    if options.grpc_target is not None:
        return remote_source(options.grpc_target, options.key_id, tls=options.tls)
    if options.key_id or options.tls:
        raise StartupError("--key-id and --tls go with --grpc-target; the Nimbus on --data-dir needs neither.")
    return await local_source(settings, options.project_id)


async def _follow(source: Source, options: Options) -> None:
    try:
        request = subscribe_request(
            str(options.project_id),
            after_seq=options.after_seq,
            since=None if options.since is None else moment(options.since, datetime.now(UTC)),
            start="earliest" if options.earliest else "latest",
            names=options.names,
            user_id=options.user_id,
            anonymous_id=options.anonymous_id,
            props=None if options.props is None else _object("--props", options.props),
            context=None if options.context is None else _object("--context", options.context),
        )
    except UnicodeError:
        raise StartupError("--name, --user and --anonymous take text in UTF-8.") from None
    except ValueError:
        raise StartupError("--after, --since and --earliest do not go together.") from None
    show = lines_for_programs() if options.as_json else lines_for_people()
    notices = _Notices(options.project_id)
    streams = Streams(source)
    try:
        events = AsyncSubscription(
            streams, request, RetryPolicy(max_wait_seconds=1), on_stream=notices.on_stream, on_break=notices.on_break
        )
        await _show(events, show, options.limit)
    except NimbusError as error:
        raise StartupError(visible(f"{error.message} ({error.reason or error.code.name})")) from None
    finally:
        await streams.close()


async def _show(events: AsyncSubscription, show: Show, limit: int | None) -> None:
    shown = 0
    async for batch in events.batches():
        some = batch.events if limit is None else batch.events[: limit - shown]
        show(some)
        shown += len(some)
        if shown == limit:
            return


class _Notices:
    """What becomes of the connection, on standard error."""

    def __init__(self, project_id: UUID) -> None:
        self._project_id = project_id
        self._connected = self._away = False

    def on_stream(self, position: int) -> None:
        if not self._connected:
            say(f"Watching project {self._project_id} behind position {position}. Ctrl-C ends.", err=True)
        elif self._away:
            say(f"Nimbus is back: going on behind position {position}.", err=True)
        self._connected, self._away = True, False

    def on_break(self, error: NimbusError) -> None:
        # A server that stops says so, and another one goes on.
        if not self._away and error.reason != "WORKER_UNAVAILABLE":
            self._away = True
            say(visible(f"Nimbus is away ({error}). Trying again ..."), err=True)


def moment(text: str, now: datetime) -> datetime:
    """A date or a time, of this machine's zone unless it has an offset, or how long ago: `90s`, `10m`, `2h`, `7d`.

    Raises StartupError.
    """
    try:
        if ago := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
            return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return read_time(f"{text}T00:00" if DATE.fullmatch(text) else text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise StartupError(
            f"--since takes a time such as 2026-01-31T12:00, or 90s, 10m, 2h or 7d ago, and not {text!r}."
        ) from None


def _object(option: str, text: str) -> Mapping[str, object]:
    try:
        orjson.loads(text)  # takes no NaN
        value = json.loads(text)  # keeps every digit of an integer
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StartupError(f'{option} takes a JSON object such as \'{{"plan": "pro"}}\'.')
    return value

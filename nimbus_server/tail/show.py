"""Events on standard output: a line each, for people or for programs."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol

import orjson
from rich.console import Console
from rich.text import Text

from nimbus_client import StoredEvent
from nimbus_server import strict_json
from nimbus_server.terminal import visible

SEQ_WIDTH = 8


class Show(Protocol):
    """Shows events. Raises BrokenPipeError where nobody reads them any more."""

    def __call__(self, events: Iterable[StoredEvent]) -> None:
        """Show them now."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def lines_for_people() -> Show:
    """Position, time of this machine's zone, name, user_id or else anonymous_id, and props.

    Cut to the width of a terminal, where it is one.
    """
    console = _Console(highlight=False, markup=False, emoji=False)
    ends: Literal["ellipsis", "crop"] = "ellipsis" if console.encoding.startswith("utf") else "crop"

    def show(events: Iterable[StoredEvent]) -> None:
        for event in events:
            if console.is_terminal:
                console.print(line_of(event, console.encoding), no_wrap=True, overflow=ends)
            else:
                console.print(line_of(event, console.encoding), soft_wrap=True)

    return show


def lines_for_programs() -> Show:
    """A JSON object a line."""

    def show(events: Iterable[StoredEvent]) -> None:
        for event in events:
            sys.stdout.buffer.write(json_of(event) + b"\n")
        sys.stdout.buffer.flush()

    return show


def line_of(event: StoredEvent, encoding: str = "utf-8") -> Text:
    """The line for people whose terminal has this encoding."""
    at = event.ts.astimezone()
    return Text.assemble(
        (f"{event.seq:>{SEQ_WIDTH}}", "dim"),
        "  ",
        (f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}", "cyan"),
        "  ",
        (visible(event.name, encoding), "bold green"),
        "  ",
        _whom(event, encoding),
        "  ",
        visible(_json_text(event.props, event.props_json), encoding) if event.props else "",
    )


def json_of(event: StoredEvent) -> bytes:
    """The line for programs."""
    return orjson.dumps(
        {
            "seq": event.seq,
            "id": event.id,
            "name": event.name,
            "ts": _rfc3339(event.ts),
            "user_id": event.user_id,
            "props": orjson.Fragment(_json_text(event.props, event.props_json)),
            "idempotency_key": event.idempotency_key,
            "received_at": _rfc3339(event.received_at),
            "anonymous_id": event.anonymous_id,
            "context": orjson.Fragment(_json_text(event.context, event.context_json)),
        }
    )


def _whom(event: StoredEvent, encoding: str) -> tuple[str, str]:
    if event.user_id:
        return visible(event.user_id, encoding), "yellow"
    return (visible(event.anonymous_id, encoding), "dim yellow") if event.anonymous_id else ("-", "yellow")


def _json_text(value: Mapping[str, object], encoded: bytes | None) -> str:
    if encoded is not None:
        return orjson.dumps(strict_json.loads(encoded)).decode()  # with every digit of its numbers
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _rfc3339(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"

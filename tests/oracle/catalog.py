"""What there is to ask about, said plainly: one event at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


def read_by(needs: Any, events: Sequence[Event]) -> list[Event]:
    """The events that a question reads."""
    return [
        event
        for event in events
        if (needs.start is None or event["t"] >= needs.start)
        and (needs.end is None or event["t"] < needs.end)
        and (needs.names is None or event["name"] in needs.names)
    ]


def properties_of(event: Event) -> Iterator[tuple[str, str]]:
    """The path and the type of each property of an event."""
    for document in ("props", "context"):
        yield from _inner(document, event[document])


def type_of(value: Any) -> str:
    """The name of the type of a value that is not null."""
    names = {str: "text", bool: "boolean", list: "list", dict: "object"}
    return names.get(type(value), "number")


def _inner(path: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        at = path + "." + "".join("\\" + character if character in ".\\" else character for character in key)
        if inner is not None:
            yield at, type_of(inner)
        if isinstance(inner, dict):
            yield from _inner(at, inner)

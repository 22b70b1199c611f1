"""Which events a stream carries: decided here for live ones, by PostgreSQL for stored ones, and alike."""

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import orjson

from nimbus_server.stream.event import StreamedEvent

# A number of so many digits that doubles may take another one for equal, as PostgreSQL does not. Or text like that.
MAYBE_INEXACT = re.compile(r"[0-9.]{16}")


@dataclass(frozen=True)
class EventFilter:
    """Which events of a project; empty or None means any.

    `props_json` and `context_json` are JSON objects that props and context must contain.
    """

    names: frozenset[str] = frozenset()
    user_id: str | None = None
    props_json: bytes = b""
    anonymous_id: str | None = None
    context_json: bytes = b""

    @cached_property
    def _hash(self) -> int:
        return hash((self.names, self.user_id, self.props_json, self.anonymous_id, self.context_json))

    # Every page is looked up by it.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _props(self) -> "JsonObject":
        return JsonObject(self.props_json.decode())

    @cached_property
    def _context(self) -> "JsonObject":
        return JsonObject(self.context_json.decode())

    def matches(self, seen: "SeenEvent") -> bool:
        """Whether the stream carries the event."""
        event = seen.event
        return (
            (not self.names or event.name in self.names)
            and (self.user_id is None or event.user_id == self.user_id)
            and (self.anonymous_id is None or event.anonymous_id == self.anonymous_id)
            and (not self.props_json or seen.props.contains(self._props))
            and (not self.context_json or seen.context.contains(self._context))
        )


EVERYTHING = EventFilter()


class SeenEvent:
    """An event with its props and its context, parsed when they are asked for, and once for all filters."""

    def __init__(self, event: StreamedEvent) -> None:
        self.event = event

    @cached_property
    def props(self) -> "JsonObject":
        """What is known about it."""
        return JsonObject(self.event.props_json)

    @cached_property
    def context(self) -> "JsonObject":
        """Where and with what it happened."""
        return JsonObject(self.event.context_json)


class JsonObject:
    """An object as JSON text, parsed when it is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def contains(self, wanted: "JsonObject") -> bool:
        """Whether it contains another one, as PostgreSQL's `@>` has it."""
        if self.may_be_inexact or wanted.may_be_inexact:
            return contains(self.exact, wanted.exact)
        return contains(self.plain, wanted.plain)

    @cached_property
    def may_be_inexact(self) -> bool:
        """Whether it is to be compared as `exact`."""
        return MAYBE_INEXACT.search(self._text) is not None

    @cached_property
    def plain(self) -> Any:
        """With numbers as Python has them."""
        return orjson.loads(self._text)

    @cached_property
    def exact(self) -> Any:
        """With numbers as they are written."""
        return json.loads(self._text, parse_float=Decimal)


def contains(value: Any, wanted: Any) -> bool:
    """Whether a JSON value contains another as `jsonb @> jsonb` of PostgreSQL has it, for objects at the top.

    https://www.postgresql.org/docs/18/datatype-json.html#JSON-CONTAINMENT
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(k in value and contains(value[k], w) for k, w in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(_has(value, w) for w in wanted)
    # To Python True is 1.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _has(values: list[Any], wanted: Any) -> bool:
    # Long lists are looked through by Python itself, which takes a tenth of the time.
    if not isinstance(wanted, dict | list) and wanted not in values:
        return False
    return any(contains(value, wanted) for value in values)

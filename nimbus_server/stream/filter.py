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
    """Which events of a project; empty or None means any. `props_json` is a JSON object that the props must contain."""

    names: frozenset[str] = frozenset()
    user_id: str | None = None
    props_json: bytes = b""

    @cached_property
    def _hash(self) -> int:
        return hash((self.names, self.user_id, self.props_json))

    # Every page is looked up by it.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def props(self) -> dict[str, Any]:
        """The object in `props_json`; empty where there is none."""
        found: dict[str, Any] = orjson.loads(self.props_json) if self.props_json else {}
        return found

    @cached_property
    def _is_inexact(self) -> bool:
        return MAYBE_INEXACT.search(self.props_json.decode()) is not None

    @cached_property
    def exact_props(self) -> dict[str, Any]:
        """The same with numbers as they are written."""
        return _exact(self.props_json.decode()) if self.props_json else {}

    def matches(self, event: StreamedEvent, props: "Props") -> bool:
        """Whether the stream carries the event, whose props are also given."""
        return (
            (not self.names or event.name in self.names)
            and (self.user_id is None or event.user_id == self.user_id)
            and (
                not self.props
                or (
                    contains(props.exact, self.exact_props)
                    if props.is_inexact or self._is_inexact
                    else contains(props.plain, self.props)
                )
            )
        )


EVERYTHING = EventFilter()


class Props:
    """Those of an event, parsed when they are asked for, and once for all filters."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def is_inexact(self) -> bool:
        """Whether they are to be compared as `exact`."""
        return MAYBE_INEXACT.search(self._text) is not None

    @cached_property
    def plain(self) -> Any:
        """With numbers as Python has them."""
        return orjson.loads(self._text)

    @cached_property
    def exact(self) -> Any:
        """With numbers as they are written."""
        return _exact(self._text)


def _exact(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return found


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

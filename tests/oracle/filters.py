"""What filters mean, said as plainly as can be: one event at a time, and no SQL.

An event is a dict {seq, t, name, user_id, anonymous_id, props, context}; JSON numbers are int, float or Decimal.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from oracle.source import value_text

from nimbus.v1.question_pb2 import Condition, ConditionOperator, EventSelector, Filter
from nimbus_server.times import read_utc

Event = Mapping[str, Any]


def matches(selector: EventSelector, event: Event) -> bool:
    """Whether an event is one of those that a selector means."""
    if selector.names and event["name"] not in selector.names:
        return False
    if not selector.names and event["name"].startswith("$"):
        return False
    return not selector.HasField("filter") or filter_holds(selector.filter, event)


def filter_holds(given: Filter, event: Event) -> bool:
    """Whether a filter holds of an event."""
    if given.all_of:
        return all(filter_holds(part, event) for part in given.all_of)
    if given.any_of:
        return any(filter_holds(part, event) for part in given.any_of)
    if given.HasField("not"):
        return not filter_holds(getattr(given, "not"), event)
    return condition_holds(given.condition, event)


def condition_holds(condition: Condition, event: Event) -> bool:
    """Whether a condition holds of an event."""
    operator = ConditionOperator.Name(condition.operator).removeprefix("CONDITION_OPERATOR_")
    wanted = [_wanted(value) for value in condition.values]
    if condition.property == "ts":
        return {
            "IS_SET": lambda: True,
            "IS_NOT_SET": lambda: False,
            "BEFORE": lambda: event["t"] < read_utc(wanted[0]),
            "AFTER": lambda: event["t"] > read_utc(wanted[0]),
        }[operator]()
    value = value_of(condition.property, event)
    if operator == "IS_SET":
        return value is not None
    if operator == "IS_NOT_SET":
        return value is None
    items = value if isinstance(value, list) else [value]
    return any(_holds(operator, item, wanted) for item in items if isinstance(item, str | bool | int | float | Decimal))


def value_of(path: str, event: Event) -> Any:
    """The value at a path, None where it is missing or null."""
    value: Any = event
    for key in _keys(path):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text_of(value: Any) -> str | None:
    """The value of a property as breakdowns show it, None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict) or abs(value) >= 2**53:
        return value_text(value)
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


def number_of(value: Any) -> float | None:
    """The value of a property as a number, None where it is none."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return float(value) if is_number else None


def _keys(path: str) -> list[str]:
    keys, key, escaped = [], "", False
    for character in path:
        if escaped:
            key, escaped = key + character, False
        elif character == "\\":
            escaped = True
        elif character == ".":
            keys.append(key)
            key = ""
        else:
            key += character
    return [*keys, key]


def _wanted(value: Any) -> str | float | bool:
    kind = value.WhichOneof("kind")
    assert kind in {"string_value", "number_value", "bool_value"}
    wanted: str | float | bool = getattr(value, kind)
    return wanted


def _same(item: Any, wanted: str | float | bool) -> bool:
    if isinstance(item, bool) or isinstance(wanted, bool):
        return item is wanted
    if isinstance(item, str) or isinstance(wanted, str):
        return item == wanted
    return float(item) == wanted


def _holds(operator: str, item: Any, wanted: list[Any]) -> bool:
    if operator == "EQUALS":
        return any(_same(item, one) for one in wanted)
    if operator == "NOT_EQUALS":
        return not any(_same(item, one) for one in wanted)
    if isinstance(item, str):
        return _text_holds(operator, item, wanted)
    if isinstance(item, bool):
        return False
    number = float(item)
    return {
        "GREATER": lambda: number > wanted[0],
        "GREATER_OR_EQUAL": lambda: number >= wanted[0],
        "LESS": lambda: number < wanted[0],
        "LESS_OR_EQUAL": lambda: number <= wanted[0],
        "BETWEEN": lambda: wanted[0] <= number <= wanted[1],
    }.get(operator, lambda: False)()


def _text_holds(operator: str, text: str, wanted: list[Any]) -> bool:
    if operator in {"BEFORE", "AFTER"}:
        try:
            at = read_utc(text)
        except ValueError:
            return False
        return at < read_utc(wanted[0]) if operator == "BEFORE" else at > read_utc(wanted[0])
    return {
        "CONTAINS": lambda: any(one in text for one in wanted),
        "NOT_CONTAINS": lambda: not any(one in text for one in wanted),
        "STARTS_WITH": lambda: any(text.startswith(one) for one in wanted),
        "MATCHES": lambda: any(re.search(one, text) for one in wanted),
    }.get(operator, lambda: False)()

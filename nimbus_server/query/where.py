"""Filters as people type them: `props.plan=pro`, `props.amount>=10`, `props.page~/cart`, `!props.plan`."""

import json
import re

from nimbus.v1.question_pb2 import Filter
from nimbus_client import all_of, condition
from nimbus_client.options import Operator
from nimbus_server.errors import StartupError

OPERATORS: dict[str, Operator] = {
    "=": "EQUALS",
    "!=": "NOT_EQUALS",
    ">": "GREATER",
    ">=": "GREATER_OR_EQUAL",
    "<": "LESS",
    "<=": "LESS_OR_EQUAL",
    "~": "CONTAINS",
    "!~": "NOT_CONTAINS",
    "^": "STARTS_WITH",
}
_CONDITION = re.compile(r"(!?)((?:\\.|[^\\=!<>~^])+)(?:(=|!=|>=|<=|>|<|~|!~|\^)(.*))?", re.DOTALL)


def read_where(texts: list[str]) -> Filter | None:
    """All of the conditions, None where there are none. Raises StartupError."""
    return all_of(*map(_condition, texts)) if texts else None


def _condition(text: str) -> Filter:
    found = _CONDITION.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise StartupError(
            f"--where {text}: it must look like props.plan=pro, props.amount>=10, props.plan or !props.plan."
        )
    negated, path, operator, value = found.groups()
    # A backslash before one of the operators' signs is for us alone.
    path = re.sub(r"\\([^.\\])", r"\1", path.strip())
    if operator is None:
        return condition(path, "IS_NOT_SET" if negated else "IS_SET")
    return condition(path, OPERATORS[operator], _value(value.strip()))


def _value(text: str) -> str | float | bool:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text

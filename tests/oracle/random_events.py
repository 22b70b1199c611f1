"""Random events and filters for Hypothesis: few keys and values, so that they meet, and all that is odd in either."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.json_format import ParseDict
from hypothesis import strategies as st

from nimbus.v1.question_pb2 import ConditionOperator, EventSelector, Filter
from nimbus_server.times import read_utc

INJECTION = "'; DROP TABLE src; --"
NAMES = st.sampled_from(["a", "b", "$own", "", INJECTION, 'n"ame', "né"])
KEYS = st.sampled_from(["plan", "plan", "a.b", 'q"uo', "back\\slash", "ünï", "", "a:s", "$[*]", INJECTION])
TIMES = [
    "2024-02-29T12:00:00Z",
    "2024-02-29t12:00z",
    "2024-02-29 12:00:00.0000009",
    "2024-02-29T12:00:00.5",
    "2024-02-29T23:59:60.25+05:45",
    "2024-02-29T12:00:00-23:59",
    "2000-01-01T00:00Z",
]
NO_TIMES = [
    "2023-02-29T12:00:00Z",
    "2024-02-29",
    "2024-02-29T24:00Z",
    "2024-02-29T12:00:00.",
    "2024-02-29T12:00:00+5",
    "0000-01-01T00:00Z",
    " 2024-02-29T12:00:00Z",
    "2024-02-29T12:00:00Z\n",
]
TEXTS = st.sampled_from(
    [
        "",
        "5",
        "true",
        "null",
        "[",
        "[1]",
        "pro",
        "Pro",
        "pro plan",
        "%",
        "\\",
        '"',
        "a\nb",
        "ä",
        INJECTION,
        *TIMES,
        *NO_TIMES,
    ]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
NUMBERS = (
    st.sampled_from([0, 1, 5, 5.0, -0.0, 0.1, -2, 2**53 - 1, 2**53, 2**53 + 1, -(10**30), 1e300, 5e-324, 1e-7])
    | st.sampled_from([Decimal("0.10000000000000000555"), Decimal("5.00"), Decimal("12345678901234567890.5")])
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
PATTERNS = ["pro", "^p", "[0-9]+", "a.b", "(?i)PRO", "", "'", r"\\", "^(a|ä)"]

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "t": st.integers(0, 2**51) | st.sampled_from([read_utc(text) for text in TIMES]),
            "name": NAMES,
            "user_id": st.none() | TEXTS,
            "anonymous_id": st.none() | TEXTS,
            "props": DOCUMENTS,
            "context": DOCUMENTS,
        }
    ),
    min_size=1,
    max_size=6,
).map(lambda events: [{"seq": seq, **event} for seq, event in enumerate(events, start=1)])


def _escape(key: str) -> str:
    return key.replace("\\", "\\\\").replace(".", "\\.")


PATHS = st.builds(
    lambda root, keys: ".".join([root, *map(_escape, keys)]),
    st.sampled_from(["props", "context"]),
    st.lists(KEYS, min_size=1, max_size=2),
)
_DOUBLES = NUMBERS.map(float)
_TIME = st.sampled_from(TIMES)


def _values(values: st.SearchStrategy[Any], least: int = 1, most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=least, max_size=most)


# Also more than are looked for one by one.
_SOME_TEXTS = _values(TEXTS) | _values(TEXTS, 9, 12)
_VALUES_OF = {
    "EQUALS": _SOME_TEXTS | _values(TEXTS | _DOUBLES | st.booleans()),
    "NOT_EQUALS": _SOME_TEXTS | _values(TEXTS | _DOUBLES | st.booleans()),
    "CONTAINS": _SOME_TEXTS,
    "NOT_CONTAINS": _SOME_TEXTS,
    "STARTS_WITH": _SOME_TEXTS,
    "MATCHES": _values(st.sampled_from(PATTERNS)),
    "GREATER": _values(_DOUBLES, 1, 1),
    "GREATER_OR_EQUAL": _values(_DOUBLES, 1, 1),
    "LESS": _values(_DOUBLES, 1, 1),
    "LESS_OR_EQUAL": _values(_DOUBLES, 1, 1),
    "BETWEEN": _values(_DOUBLES, 2, 2),
    "IS_SET": st.just([]),
    "IS_NOT_SET": st.just([]),
    "BEFORE": _values(_TIME, 1, 1),
    "AFTER": _values(_TIME, 1, 1),
}
assert len(_VALUES_OF) == len(ConditionOperator.values()) - 1


def _condition(paths: st.SearchStrategy[str], operators: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    def with_values(operator: str) -> st.SearchStrategy[dict[str, Any]]:
        return st.builds(
            lambda path, values: {
                "condition": {"property": path, "operator": f"CONDITION_OPERATOR_{operator}", "values": values}
            },
            paths,
            _VALUES_OF[operator],
        )

    return st.sampled_from(operators).flatmap(with_values)


_CONDITIONS = _condition(PATHS | st.sampled_from(["name", "user_id", "anonymous_id"]), [*_VALUES_OF]) | _condition(
    st.just("ts"), ["IS_SET", "IS_NOT_SET", "BEFORE", "AFTER"]
)


def _nest(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    parts = st.lists(inner, min_size=1, max_size=3)
    within: Callable[[str], Callable[[Any], dict[str, Any]]] = lambda kind: lambda part: {kind: part}  # noqa: E731
    return parts.map(within("all_of")) | parts.map(within("any_of")) | inner.map(within("not"))


_LEVEL_2 = _CONDITIONS | _nest(_CONDITIONS)
FILTERS = (_LEVEL_2 | _nest(_LEVEL_2)).map(lambda given: ParseDict(given, Filter()))
SELECTORS = st.builds(
    lambda names, given: EventSelector(names=names, filter=given), st.lists(NAMES.filter(bool), max_size=2), FILTERS
)

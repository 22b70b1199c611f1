"""Conditions: a comparison of one property as a SQL predicate that is TRUE or FALSE for every event, never NULL."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nimbus.v1.question_pb2 import Condition, ConditionOperator
from nimbus_server.analyses.literal import double, literal, literals
from nimbus_server.analyses.property import TS, Property, property_field
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.times import EXAMPLE, read_utc

VALUES_MAX = 1_000
PATTERNS_MAX = 10
PATTERN_LENGTH_MAX = 500

# So many texts are looked for by one regular expression: one after the other takes 20 times as long for 1,000.
MANY = 8

Value = str | float | bool
# From the SQL of a value to that of a comparison, which may be NULL where the value is.
Test = Callable[[str], str]

_OPERATOR = {number: name.removeprefix("CONDITION_OPERATOR_") for name, number in ConditionOperator.items()}
_ON_TS = ("IS_SET", "IS_NOT_SET", "BEFORE", "AFTER")
_ON_NUMBERS = {"GREATER": ">", "GREATER_OR_EQUAL": ">=", "LESS": "<", "LESS_OR_EQUAL": "<="}
# The forms of times.py as RE2 has them.
_TIME = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]"
    r"(?::(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
)
# What a regular expression does not take as it stands.
_SPECIAL = re.compile(r"[^0-9A-Za-z_\u0080-\U0010ffff]")
# An item `x` of a list as text, as number and as boolean.
_ITEM = (
    "CASE WHEN json_type(x) = 'VARCHAR' THEN json_extract_string(x, '$') END",
    "CASE WHEN json_type(x) IN ('UBIGINT', 'BIGINT', 'DOUBLE') THEN TRY_CAST(x AS DOUBLE) END",
    "CASE WHEN json_type(x) = 'BOOLEAN' THEN TRY_CAST(x AS BOOLEAN) END",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a value is compared if it is a text, a number or a boolean; None: it does not match then."""

    text: Test | None = None
    number: Test | None = None
    boolean: Test | None = None


def read_condition(field: str, condition: Condition) -> tuple[str, Property]:
    """The predicate of a condition, and the property that it reads.

    Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG, and the path of what is wrong.
    """
    prop = property_field(f"{field}.property", condition.property, may_be_ts=True)
    operator = _OPERATOR.get(condition.operator)
    if operator is None:
        raise field_error(Reason.FIELD_INVALID, f"{field}.operator", f"{field}.operator is not an operator.")
    if operator == "UNSPECIFIED":
        raise field_error(Reason.FIELD_REQUIRED, f"{field}.operator", f"{field}.operator is required.")
    if prop.root == TS and operator not in _ON_TS:
        raise field_error(
            Reason.FIELD_INVALID, f"{field}.operator", f"{field}.operator must be one of {', '.join(_ON_TS)} for ts."
        )
    values = [*_values(f"{field}.values", condition)]
    if operator in {"IS_SET", "IS_NOT_SET"}:
        _check_count(f"{field}.values", values, 0, 0)
        return (prop.is_set() if operator == "IS_SET" else f"(NOT {prop.is_set()})"), prop
    if prop.root == TS:
        return f"(t {_time_sign(operator)} {_time(f'{field}.values', values)})", prop
    return _predicate(prop, _comparison(operator, f"{field}.values", values)), prop


def _predicate(prop: Property, comparison: Comparison) -> str:
    if not prop.keys:
        return _any(comparison, prop.column("s"), None, None)
    own = _any(comparison, prop.column("s"), prop.number(), prop.column("b"))
    j = prop.column("j")
    items = f"list_filter(json_extract({j}, '$[*]'), lambda x: {_any(comparison, *_ITEM)})"
    # Without IS NOT NULL the rest would be computed even where no file has lists.
    return f"({own} OR ({j} IS NOT NULL AND starts_with({j}, '[') AND len({items}) > 0))"


def _any(comparison: Comparison, text: str, number: str | None, boolean: str | None) -> str:
    """Whether any of the values matches, of which at most one is not NULL."""
    kinds = ((comparison.text, text), (comparison.number, number), (comparison.boolean, boolean))
    tests = [test(value) for test, value in kinds if test is not None and value is not None]
    return f"coalesce({' OR '.join(tests)}, FALSE)" if tests else "FALSE"


def _comparison(operator: str, field: str, values: Sequence[Value]) -> Comparison:
    if operator in {"EQUALS", "NOT_EQUALS"}:
        _check_count(field, values, 1, VALUES_MAX)
        return _equals(values) if operator == "EQUALS" else _not_equals(values)
    if operator in _ON_NUMBERS or operator == "BETWEEN":
        return Comparison(number=_number_test(operator, field, values))
    return Comparison(text=_text_test(operator, field, values))


def _number_test(operator: str, field: str, values: Sequence[Value]) -> Test:
    if operator == "BETWEEN":
        low, high = _numbers(field, values, 2)
        return lambda value: f"{value} BETWEEN {double(low)} AND {double(high)}"
    (number,) = _numbers(field, values, 1)
    return lambda value: f"{value} {_ON_NUMBERS[operator]} {double(number)}"


def _text_test(operator: str, field: str, values: Sequence[Value]) -> Test:
    if operator in {"BEFORE", "AFTER"}:
        at = _time(field, values)
        return lambda value: f"{_micros(value)} {_time_sign(operator)} {at}"
    if operator == "MATCHES":
        return _any_of("regexp_matches", _patterns(field, values))
    texts = _texts(field, values, VALUES_MAX)
    if operator == "STARTS_WITH":
        return _any_of("starts_with", texts)
    contains = _any_of("contains", texts)
    return contains if operator == "CONTAINS" else lambda value: f"NOT {contains(value)}"


def _equals(values: Sequence[Value]) -> Comparison:
    texts, numbers, booleans = _by_type(values)
    return Comparison(
        _is_one_of(texts) if texts else None,
        (lambda value: f"{value} IN ({numbers})") if numbers else None,
        (lambda value: f"{value} IN ({booleans})") if booleans else None,
    )


def _not_equals(values: Sequence[Value]) -> Comparison:
    """A value of a type that is not among the values is none of them."""
    texts, numbers, booleans = _by_type(values)
    return Comparison(
        lambda value: f"NOT {_is_one_of(texts)(value)}" if texts else f"({value}) IS NOT NULL",
        lambda value: f"{value} NOT IN ({numbers})" if numbers else f"({value}) IS NOT NULL",
        lambda value: f"{value} NOT IN ({booleans})" if booleans else f"({value}) IS NOT NULL",
    )


def _by_type(values: Sequence[Value]) -> tuple[list[str], str, str]:
    """The texts, numbers and booleans among the values, the latter two as an IN list has them."""
    return (
        [value for value in values if isinstance(value, str)],
        ", ".join(double(value) for value in values if isinstance(value, float)),
        ", ".join(str(value).upper() for value in values if isinstance(value, bool)),
    )


def _is_one_of(texts: Sequence[str]) -> Test:
    if len(texts) > MANY:
        return lambda value: f"regexp_full_match({value}, {literal(_pattern_of(texts))})"
    return lambda value: f"({value} IN ({literals(texts)}))"


def _any_of(function: str, texts: Sequence[str]) -> Test:
    if len(texts) > MANY and function != "regexp_matches":
        begin = "^" if function == "starts_with" else ""
        return lambda value: f"regexp_matches({value}, {literal(begin + _pattern_of(texts))})"
    return lambda value: "(" + " OR ".join(f"{function}({value}, {literal(text)})" for text in texts) + ")"


def _pattern_of(texts: Sequence[str]) -> str:
    """A regular expression for any of the texts as it stands."""
    return "(?:" + "|".join(_SPECIAL.sub(r"\\\g<0>", text) for text in dict.fromkeys(texts)) + ")"


def _micros(text: str) -> str:
    """SQL: a text in the forms of times.py as microseconds since 1970; NULL where it is none."""
    return (
        f"CASE WHEN regexp_full_match({text}, '{_TIME}') AND ({text}) >= '0001' THEN "
        f"epoch_us(TRY_CAST(substr({text}, 1, 10) || ' ' || substr({text}, 12, 5) || ':00' AS TIMESTAMP))"
        rf" + coalesce(TRY_CAST(regexp_extract({text}, '^.{{16}}:([0-9]{{2}})', 1) AS BIGINT), 0) * 1000000"
        rf" + CAST(rpad(regexp_extract({text}, '\.([0-9]{{1,6}})', 1), 6, '0') AS BIGINT)"
        f" - CASE substr({text}, -6, 1) WHEN '+' THEN 60000000 WHEN '-' THEN -60000000 ELSE 0 END"
        f" * coalesce(TRY_CAST(substr({text}, -5, 2) AS BIGINT) * 60 + TRY_CAST(substr({text}, -2) AS BIGINT), 0) END"
    )


def _time_sign(operator: str) -> str:
    return "<" if operator == "BEFORE" else ">"


def _values(field: str, condition: Condition) -> Iterator[Value]:
    if len(condition.values) > VALUES_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, field, f"{field} has more than {VALUES_MAX} values.")
    for index, value in enumerate(condition.values):
        kind = value.WhichOneof("kind")
        if kind == "string_value" and "\0" not in value.string_value:
            yield value.string_value
        elif kind == "number_value" and math.isfinite(value.number_value):
            yield value.number_value
        elif kind == "bool_value":
            yield value.bool_value
        else:
            raise field_error(
                Reason.FIELD_INVALID,
                f"{field}[{index}]",
                f"{field}[{index}] must be a text without NUL, a finite number or a boolean.",
            )


def _numbers(field: str, values: Sequence[Value], count: int) -> list[float]:
    _check_count(field, values, count, count)
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        raise _wrong(field, next(i for i, value in enumerate(values) if not isinstance(value, float)), "a number")
    return numbers


def _texts(field: str, values: Sequence[Value], most: int) -> list[str]:
    _check_count(field, values, 1, most)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise _wrong(field, next(i for i, value in enumerate(values) if not isinstance(value, str)), "a text")
    return texts


def _patterns(field: str, values: Sequence[Value]) -> list[str]:
    patterns = _texts(field, values, PATTERNS_MAX)
    for index, pattern in enumerate(patterns):
        if len(pattern) > PATTERN_LENGTH_MAX:
            name = f"{field}[{index}]"
            raise field_error(Reason.FIELD_TOO_LONG, name, f"{name} must have at most {PATTERN_LENGTH_MAX} characters.")
    return patterns


def _time(field: str, values: Sequence[Value]) -> int:
    (text,) = _texts(field, values, 1)
    try:
        return read_utc(text)
    except ValueError:
        raise _wrong(field, 0, f"a time such as {EXAMPLE} (RFC 3339)") from None


def _check_count(field: str, values: Sequence[Value], least: int, most: int) -> None:
    if not least <= len(values) <= most:
        count = "no values" if most == 0 else str(least) if least == most else f"{least} to {most} values"
        what = f"must have {count}" if most else "must be left out"
        raise field_error(Reason.FIELD_INVALID, field, f"{field} {what} for this operator.")


def _wrong(field: str, index: int, wanted: str) -> NimbusError:
    name = f"{field}[{index}]"
    return field_error(Reason.FIELD_INVALID, name, f"{name} must be {wanted} for this operator.")

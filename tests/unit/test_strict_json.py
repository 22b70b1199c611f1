"""JSON is read to the last digit and the last key, or what is lost is marked."""

import json
import math
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nimbus_server import strict_json
from nimbus_server.strict_json import LEVELS_MAX, RepeatedKey, is_unchanged, loads, repeated_key

NUMBERS = (
    st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: str(d).lstrip("+"))
    | st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,4})?\Z")
    | st.sampled_from(["18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809"])
)
STRINGS = st.text(max_size=5).map(json.dumps) | st.text(max_size=5).map(lambda text: orjson.dumps(text).decode())
KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"c d"'])
SPACES = st.sampled_from(["", " ", "\n\t"])


def _object(pairs: list[tuple[str, str]], space: str) -> str:
    return "{" + f",{space}".join(f"{key}{space}:{value}" for key, value in pairs) + space + "}"


TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.builds(lambda items, space: f"[{space}" + f"{space},".join(items) + "]", st.lists(inner, max_size=4), SPACES)
        | st.builds(_object, st.lists(st.tuples(KEYS, inner), max_size=4), SPACES)
    ),
    max_leaves=12,
)


def exact(text: str | bytes) -> Any:
    """A plain reading: pairs for objects, Decimals for numbers."""
    return json.loads(text, object_pairs_hook=tuple, parse_int=Decimal, parse_float=Decimal)


def in_range(number: Decimal) -> bool:
    return number == 0 or (math.isfinite(float(number)) and float(number) != 0)


def walk(value: Any) -> Any:
    yield value
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from walk(item)


def pieces(value: Any) -> Any:
    """All objects and numbers of a plain reading."""
    if isinstance(value, Decimal | tuple):
        yield value
    for item in value if isinstance(value, list) else [v for _, v in value] if isinstance(value, tuple) else ():
        yield from pieces(item)


@given(TEXTS)
@example('{"a":1,"a":2}')
@example('{"a":1,"\\u0061":2}')
@example("[1.10, 1e5, 0e-99999, -0, -0.0, 0.1000000000000000055511151231257827]")
@example("12345678901234567890123")
@example('{"a b":1,"ab":1}')
def test_what_is_read_is_what_was_written_or_is_marked(text: str) -> None:
    value, plain = loads(text.encode()), exact(text)
    numbers = [piece for piece in pieces(plain) if isinstance(piece, Decimal)]
    objects = [piece for piece in pieces(plain) if isinstance(piece, tuple)]
    repeated = any(len({key for key, _ in pairs}) < len(pairs) for pairs in objects)
    marked = [item for item in walk(value) if isinstance(item, RepeatedKey)]
    if repeated:
        # One below another that is not the last of its key goes with it.
        assert marked
        assert repeated_key(text.encode()) is not None
        return
    assert not marked
    assert repeated_key(text.encode()) is None
    nans = [item for item in walk(value) if isinstance(item, float) and math.isnan(item)]
    assert len(nans) == len([number for number in numbers if not in_range(number)])
    if not nans:
        assert exact(orjson.dumps(value)) == plain


@given(TEXTS)
def test_a_text_that_says_more_than_its_value_is_changed(text: str) -> None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if is_unchanged(value, text.encode()):
        assert exact(orjson.dumps(value)) == exact(text)


@given(st.lists(NUMBERS, min_size=1), st.booleans())
def test_a_number_is_the_same_beside_any_other(numbers: list[str], beside: bool) -> None:
    odd = ["NaN", "1.10", '{"a":1,"a":2}'] if beside else []
    together = loads(f"[{','.join([*numbers, *odd])}]".encode())
    for number, read in zip(numbers, together, strict=False):
        assert orjson.dumps(read) == orjson.dumps(loads(number.encode()))


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [250, 900, 1000, 1023, 1025, 1100, 5_000, 90_000])
def test_what_is_too_deep_leaves_its_neighbours(levels: int) -> None:
    value = loads(b'{"events":[{"a":%b},{"b":1.50,"text":"[[]{\\"}"},{"c":%b}]}' % (nested(levels), nested(levels)))
    deep, neighbour, _ = value["events"]
    assert orjson.dumps(neighbour) == b'{"b":1.50,"text":"[[]{\\"}"}'
    value, read = deep["a"], 1
    while value:
        (value,) = value
        read += 1
    assert read == levels if levels < 900 else read > LEVELS_MAX - 5


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"[1,]", b"{1:2}", b"[01]", b"[1.]", b'{"a" 1}', b"nan", b'"\x01"', b'"'),
        *(b"[" * 50_000, b"[" * 300_000, nested(1100) + b"x", nested(1100)[:-1], nested(300_000)),
        b"[" * 1100 + b'"' + b'\\"' * 1_000_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of json and of strict_json alike
        loads(text)


def test_a_number_may_have_so_many_characters_and_no_more() -> None:
    longest = b"0." + b"1" * (strict_json.NUMBER_LENGTH_MAX - 2)
    assert orjson.dumps(loads(longest)) == longest
    assert math.isnan(loads(longest + b"1"))

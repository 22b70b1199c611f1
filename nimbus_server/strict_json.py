"""JSON read without loss: no key is dropped and no digit of a number.

orjson is fast, but keeps only the last of two equal keys and rounds numbers to doubles. What it has read is therefore
written again: if that gives the text back, nothing was lost. If not, the slower parser of Python reads the text.
"""

import json
import math
import re
from typing import Any

import orjson

WHITESPACE = b" \t\r\n"
# Longest number that is kept, in characters: the exact value of every double has fewer.
NUMBER_LENGTH_MAX = 1100
# Integers that orjson reads and writes.
INT_MIN, INT_MAX = -(2**63), 2**64 - 1
# Levels of nesting that are read; Python's parser can't do many more than this.
LEVELS_MAX = 200
# In a text with more levels than Python's parser can read, which then takes several times as long.
BRACKETS_MAX = 200_000

_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?$)|([\[{])|([\]}])', re.DOTALL)
_NONZERO = re.compile(r"[1-9]")


class RepeatedKey(dict[str, Any]):
    """An object in which `key` stands twice. It holds the last value of each key."""

    key: str


def loads(text: bytes) -> Any:
    """The value of a JSON text, as orjson gives it but for what that would lose.

    A number that no double or 64-bit integer holds to the digit is an orjson.Fragment with its text. NaN stands for a
    number outside the range of doubles or longer than NUMBER_LENGTH_MAX, an infinity for `Infinity`. An object with a
    key that stands twice is a RepeatedKey. Text may hold lone surrogates, also for bytes that are not UTF-8. What is
    nested deeper than LEVELS_MAX may be 0 where the text has hundreds of levels. Raises ValueError where the text is
    not JSON.
    """
    try:
        value = orjson.loads(text)
        if is_unchanged(value, text):
            return value
    except orjson.JSONDecodeError:
        pass  # Python's parser accepts more: lone surrogates, NaN, long numbers, more levels
    decoded = text.decode(errors="surrogateescape")
    try:
        return _DECODER.decode(decoded)
    except RecursionError:
        return _decode_deep(decoded)


def repeated_key(text: bytes) -> str | None:
    """The first key that stands twice in an object of a JSON text; None where there is none.

    Raises ValueError where the text is not JSON.
    """
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = _object(pairs)
        if isinstance(value, RepeatedKey):
            found.append(value.key)
        return value

    try:
        json.JSONDecoder(object_pairs_hook=note, parse_float=_float, parse_int=_int).decode(text.decode())
    except RecursionError:
        raise ValueError("too deeply nested") from None
    return found[0] if found else None


def is_unchanged(value: Any, text: bytes) -> bool:
    """Whether JSON text says no more than the value that orjson has read from it, whitespace aside."""
    try:
        written = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False  # it reads more levels than it writes
    return written == text or written.translate(None, WHITESPACE) == text.translate(None, WHITESPACE)


def _decode_deep(text: str) -> Any:
    if text.count("[") + text.count("{") > BRACKETS_MAX:
        raise ValueError("too deeply nested")
    try:
        return _DECODER.decode(_without_deep_values(text))
    except RecursionError:
        raise ValueError("too deeply nested") from None


def _without_deep_values(text: str) -> str:
    """The text with 0 in place of what is nested deeper than LEVELS_MAX."""
    kept, start, level = [], 0, 0
    for bracket in _BRACKET.finditer(text):
        if bracket[1]:
            level += 1
            if level == LEVELS_MAX + 1:
                kept.append(text[start : bracket.start()])
        elif bracket[2]:
            if level == LEVELS_MAX + 1:
                kept.append("0")
                start = bracket.end()
            level -= 1
    kept.append(text[start:])
    return "".join(kept)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeated = RepeatedKey(found)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _float(text: str) -> Any:
    if len(text) > NUMBER_LENGTH_MAX:
        return math.nan
    value = float(text)
    if repr(value) == text:
        return value
    if not _NONZERO.search(text.lower().partition("e")[0]):
        return value  # a zero, whatever its exponent
    return orjson.Fragment(text) if value != 0 and math.isfinite(value) else math.nan


def _int(text: str) -> Any:
    if len(text) <= 20 and INT_MIN <= (value := int(text)) <= INT_MAX:
        return value
    return _float(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int)

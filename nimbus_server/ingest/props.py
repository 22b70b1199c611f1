"""Properties of an event, and its context: any JSON objects within the limits.

`field` is which of the two is meant, for errors.

Numbers are kept to the digit: in the dictionaries here, one that no double or 64-bit integer holds is an
orjson.Fragment (see strict_json.py). PostgreSQL writes numbers out without an exponent, so that is how they count.
"""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import orjson

from nimbus_server import strict_json
from nimbus_server.errors import Reason
from nimbus_server.ingest.event import PROPS_BYTES_MAX, PROPS_DEPTH_MAX, EventRefusedError

# A number in a list is the worst: 2 bytes as JSON, 13 in a Struct.
STRUCT_BYTES_PER_JSON_BYTE = 8
# Values that can't be too deep, infinite, or longer in PostgreSQL than as JSON.
PLAIN = frozenset({str, int, bool, type(None)})
CHECKED_AT_ONCE = PLAIN | {float, dict, list}
# Absolute values of doubles that are written without an exponent, beside 0.
PLAIN_FLOAT_MIN, PLAIN_FLOAT_MAX = 1e-4, 1e15
# Or a backslash before "u0000".
ENCODED_NUL = b"\\u0000"
# Looked for first: bytes find one byte in a tenth of the time.
BACKSLASH = ord("\\")
# A string, or a number with an exponent: its sign, digits before and after the point, and exponent.
_EXPONENT = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(-?)([0-9]+)(?:\.([0-9]+))?[eE]([-+]?[0-9]+)')


def encode_props(props: dict[str, Any], field: str = "props") -> bytes:
    """The properties as compact JSON.

    Raises EventRefusedError where they are too large or too deep, or hold a key twice, NUL, half a character or a
    number out of range.
    """
    is_plain = type(props) is dict and PLAIN.issuperset(map(type, props.values()))
    if not is_plain:
        # So many keys and values are too many bytes in any case: nothing larger is walked.
        _check(props, PROPS_DEPTH_MAX, PROPS_BYTES_MAX, field)
    try:
        encoded = orjson.dumps(props)
    except orjson.JSONEncodeError:
        raise EventRefusedError(
            field, Reason.FIELD_INVALID, f"{field} must be valid JSON without half characters (lone surrogates)."
        ) from None
    if len(encoded) > PROPS_BYTES_MAX or not (is_plain or _written_out_bytes(encoded) <= PROPS_BYTES_MAX):
        raise _too_long(field)
    if BACKSLASH in encoded and ENCODED_NUL in encoded:
        _check(props, PROPS_DEPTH_MAX, PROPS_BYTES_MAX, field)
    return encoded


def encode_all_props(all_props: Sequence[dict[str, Any] | None], field: str = "props") -> list[bytes]:
    """The properties of several events as encode_props gives them; None is none. Raises what it does.

    What is plain, as nearly all are, is checked all at once, which takes half the time.
    """
    props = [some or {} for some in all_props]
    if _are_plain(props):
        try:
            encoded = list(map(orjson.dumps, props))
        except orjson.JSONEncodeError:
            pass
        else:
            if max(map(len, encoded)) <= PROPS_BYTES_MAX and BACKSLASH not in b"".join(encoded):
                return encoded
    return [encode_props(some, field) for some in props]


def check_all_props_json(encoded: Sequence[bytes], field: str = "props") -> Sequence[bytes]:
    """The properties of several events as check_props_json gives them. Raises what it does."""
    return encoded if _is_plain_json(encoded) else [check_props_json(one, field) for one in encoded]


def check_props_json(encoded: bytes, field: str = "props") -> bytes:
    """Properties that came as JSON: as they are if they are plain, or else as parse_props and encode_props give them.

    Raises what those do.
    """
    return encoded if _is_plain_json((encoded,)) else encode_props(parse_props(encoded, field), field)


def parse_props(encoded: bytes, field: str = "props") -> dict[str, Any]:
    """The JSON object in `encoded`. Raises EventRefusedError where it is none."""
    try:
        props = strict_json.loads(encoded)
    except ValueError:
        props = None
    if not isinstance(props, dict):
        raise EventRefusedError(f"{field}_json", Reason.FIELD_INVALID, f"{field}_json must be a JSON object in UTF-8.")
    return props


def struct_to_dict(struct: Any, field: str = "props") -> dict[str, Any]:
    """A google.protobuf.Struct as a dict, with whole numbers as int.

    Walked by hand: json_format takes ten times as long. Raises EventRefusedError where it is too large in any case.
    """
    if struct.ByteSize() > STRUCT_BYTES_PER_JSON_BYTE * PROPS_BYTES_MAX:
        raise _too_long(field)
    return _fields(struct)


def _fields(struct: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _fields(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None


def _is_plain_json(encoded: Sequence[bytes]) -> bool:
    """Whether all are the JSON of plain properties, with nothing in it that reading them would lose."""
    try:
        props = list(map(orjson.loads, encoded))
    except orjson.JSONDecodeError:
        return False
    if not props or max(map(len, encoded)) > PROPS_BYTES_MAX or not _are_plain(props):
        return False
    text = b"[%b]" % b",".join(encoded)
    return BACKSLASH not in text and strict_json.is_unchanged(props, text)


def _are_plain(all_props: Sequence[Any]) -> bool:
    """Whether all are objects within PROPS_DEPTH_MAX, of values that need no look at each of them."""
    if not {dict}.issuperset(map(type, all_props)):
        return False
    values = [*chain.from_iterable(map(dict.values, all_props))]
    for _ in range(PROPS_DEPTH_MAX):
        types = set(map(type, values))
        if types <= PLAIN:
            return True
        if not types <= CHECKED_AT_ONCE or (float in types and not _have_plain_floats(values)):
            return False
        if dict not in types and list not in types:
            return True
        objects = [value.values() for value in values if type(value) is dict]
        values = [*chain.from_iterable(objects), *chain.from_iterable([v for v in values if type(v) is list])]
    return False


def _have_plain_floats(values: Iterable[Any]) -> bool:
    sizes = [*filter(None, map(abs, [value for value in values if type(value) is float]))]
    # A NaN is neither the least nor the greatest, but it is in the sum.
    return not sizes or (min(sizes) >= PLAIN_FLOAT_MIN and max(sizes) < PLAIN_FLOAT_MAX and math.isfinite(sum(sizes)))


def _written_out_bytes(encoded: bytes) -> int:
    """The length of JSON with its numbers as PostgreSQL writes a numeric: `15e2` as 1500, `1.5e-3` as 0.0015."""
    size = len(encoded)
    for number in _EXPONENT.finditer(encoded):
        if number[4] is not None:
            exponent, decimals = int(number[4]), len(number[3] or b"")
            before, after = max(len(number[2]) + exponent, 1), max(decimals - exponent, 0)
            size += len(number[1]) + before + after + (after > 0) - len(number[0])
    return size


def _check(value: Any, levels: int, budget: int, field: str) -> int:
    """Check a value of at most `budget` values, and return how many are left of it."""
    if budget == 0:
        raise _too_long(field)
    budget -= 1
    if isinstance(value, str) and "\0" in value:
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} must not contain NUL.")
    if isinstance(value, float) and not math.isfinite(value):
        raise _number_out_of_range(field)
    if not isinstance(value, dict | list):
        return budget
    if isinstance(value, strict_json.RepeatedKey):
        raise EventRefusedError(field, Reason.FIELD_INVALID, f"{field} has the key {value.key[:100]!r} twice.")
    if levels == 0:
        raise EventRefusedError(
            field, Reason.PROPS_TOO_DEEP, f"{field} must have at most {PROPS_DEPTH_MAX} levels of nesting."
        )
    for item in (*value, *value.values()) if isinstance(value, dict) else value:
        budget = _check(item, levels - 1, budget, field)
    return budget


def _number_out_of_range(field: str) -> EventRefusedError:
    return EventRefusedError(
        field,
        Reason.FIELD_INVALID,
        f"Numbers in {field} must be finite, within the range of a double (5e-324 to 1.7e308), and have at most "
        f"{strict_json.NUMBER_LENGTH_MAX} digits.",
    )


def _too_long(field: str) -> EventRefusedError:
    return EventRefusedError(
        field,
        Reason.FIELD_TOO_LONG,
        f"{field} must have at most {PROPS_BYTES_MAX} bytes as JSON, numbers without exponents.",
    )

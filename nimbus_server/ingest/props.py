"""Properties of an event: any JSON object within the limits."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import orjson

from nimbus_server.errors import Reason
from nimbus_server.ingest.event import PROPS_BYTES_MAX, PROPS_DEPTH_MAX, EventRefusedError

# A number in a list is the worst: 2 bytes as JSON, 13 in a Struct.
STRUCT_BYTES_PER_JSON_BYTE = 8
# Values that can't be too deep or infinite.
PLAIN = frozenset({str, int, bool, type(None)})
# orjson refuses numbers that no double holds.
PARSED_PLAIN = PLAIN | {float}
# Or a backslash before "u0000".
ENCODED_NUL = b"\\u0000"
# Looked for first: bytes find one byte in a tenth of the time.
BACKSLASH = ord("\\")


def encode_props(props: dict[str, Any]) -> bytes:
    """The properties as compact JSON.

    Raises EventRefusedError where they are too large or too deep, or hold NUL or a number that is not finite.
    """
    if not PLAIN.issuperset(map(type, props.values())):
        # So many keys and values are too many bytes in any case: nothing larger is walked.
        _check(props, PROPS_DEPTH_MAX, PROPS_BYTES_MAX)
    try:
        encoded = orjson.dumps(props)
    except orjson.JSONEncodeError:
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must be valid JSON.") from None
    if len(encoded) > PROPS_BYTES_MAX:
        raise _too_long()
    if BACKSLASH in encoded and ENCODED_NUL in encoded:
        _check(props, PROPS_DEPTH_MAX, PROPS_BYTES_MAX)
    return encoded


def encode_all_props(all_props: Sequence[dict[str, Any] | None]) -> list[bytes]:
    """The properties of several events as encode_props gives them; None is none. Raises what it does.

    What is plain, as nearly all are, is checked all at once, which takes half the time.
    """
    props = [some or {} for some in all_props]
    types = set(map(type, _values(props)))
    if types <= PLAIN or (types <= PARSED_PLAIN and _are_finite(props)):
        try:
            encoded = list(map(orjson.dumps, props))
        except orjson.JSONEncodeError:
            pass
        else:
            if _are_short_and_plain(encoded):
                return encoded
    return list(map(encode_props, props))


def check_all_props_json(encoded: Sequence[bytes]) -> Sequence[bytes]:
    """The properties of several events as check_props_json gives them. Raises what it does."""
    try:
        props = list(map(orjson.loads, encoded))
    except orjson.JSONDecodeError:
        props = []
    if (
        {dict}.issuperset(map(type, props))
        and PARSED_PLAIN.issuperset(map(type, _values(props)))
        and _are_short_and_plain(encoded)
        and props
    ):
        return encoded
    return list(map(check_props_json, encoded))


def check_props_json(encoded: bytes) -> bytes:
    """Properties that came as JSON. Raises what parse_props and encode_props do."""
    props = parse_props(encoded)
    if (
        len(encoded) > PROPS_BYTES_MAX
        or (BACKSLASH in encoded and ENCODED_NUL in encoded)
        or not PARSED_PLAIN.issuperset(map(type, props.values()))
    ):
        return encode_props(props)
    return encoded


def parse_props(encoded: bytes) -> dict[str, Any]:
    """The JSON object in `encoded`. Raises EventRefusedError where it is none."""
    try:
        props = orjson.loads(encoded)
    except orjson.JSONDecodeError:
        props = None
    if not isinstance(props, dict):
        raise EventRefusedError("props_json", Reason.FIELD_INVALID, "props_json must be a JSON object in UTF-8.")
    return props


def struct_to_dict(struct: Any) -> dict[str, Any]:
    """A google.protobuf.Struct as a dict, with whole numbers as int.

    Walked by hand: json_format takes ten times as long. Raises EventRefusedError where it is too large in any case.
    """
    if struct.ByteSize() > STRUCT_BYTES_PER_JSON_BYTE * PROPS_BYTES_MAX:
        raise _too_long()
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


def _values(all_props: Iterable[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, all_props))


def _are_finite(all_props: Iterable[dict[str, Any]]) -> bool:
    return all(math.isfinite(value) for value in _values(all_props) if type(value) is float)


def _are_short_and_plain(encoded: Sequence[bytes]) -> bool:
    return max(map(len, encoded)) <= PROPS_BYTES_MAX and BACKSLASH not in b"".join(encoded)


def _check(value: Any, levels: int, budget: int) -> int:
    """Check a value of at most `budget` values, and return how many are left of it."""
    if budget == 0:
        raise _too_long()
    budget -= 1
    if isinstance(value, str) and "\0" in value:
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must not contain NUL.")
    if isinstance(value, float) and not math.isfinite(value):
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must hold finite numbers only.")
    if not isinstance(value, dict | list):
        return budget
    if levels == 0:
        raise EventRefusedError(
            "props", Reason.PROPS_TOO_DEEP, f"props must have at most {PROPS_DEPTH_MAX} levels of nesting."
        )
    for item in (*value, *value.values()) if isinstance(value, dict) else value:
        budget = _check(item, levels - 1, budget)
    return budget


def _too_long() -> EventRefusedError:
    return EventRefusedError(
        "props", Reason.FIELD_TOO_LONG, f"props must have at most {PROPS_BYTES_MAX} bytes as JSON."
    )

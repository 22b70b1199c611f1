"""Properties of an event: any JSON object within the limits."""

import math
from typing import Any

import orjson

from nimbus_server.errors import Reason
from nimbus_server.ingest.event import PROPS_BYTES_MAX, PROPS_DEPTH_MAX, EventRefusedError


def encode_props(props: dict[str, Any]) -> bytes:
    """The properties as compact JSON.

    Raises EventRefusedError where they are too large or too deep, or hold NUL or a number that is not finite.
    """
    _check(props, PROPS_DEPTH_MAX)
    try:
        encoded = orjson.dumps(props)
    except orjson.JSONEncodeError:
        raise EventRefusedError("props", Reason.FIELD_INVALID, "props must be valid JSON.") from None
    if len(encoded) > PROPS_BYTES_MAX:
        raise EventRefusedError(
            "props", Reason.FIELD_TOO_LONG, f"props must have at most {PROPS_BYTES_MAX} bytes as JSON."
        )
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

    Walked by hand: json_format takes ten times as long.
    """
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
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None


def _check(value: Any, levels: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise EventRefusedError("props", Reason.FIELD_INVALID, "props must not contain NUL.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise EventRefusedError("props", Reason.FIELD_INVALID, "props must hold finite numbers only.")
    elif isinstance(value, dict | list):
        if levels == 0:
            raise EventRefusedError(
                "props", Reason.PROPS_TOO_DEEP, f"props must have at most {PROPS_DEPTH_MAX} levels of nesting."
            )
        if isinstance(value, dict):
            for key, item in value.items():
                _check(key, levels)
                _check(item, levels - 1)
        else:
            for item in value:
                _check(item, levels - 1)

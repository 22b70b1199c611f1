"""The fields of a message from a JSON object, read strictly at every depth: nothing unknown is dropped."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus.v1.retention_pb2 import RetentionBracket
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.query import set_field

# No request has more levels of messages.
LEVELS_MAX = 30
# Nor has any more items in a list.
ITEMS_MAX = 1_000
# Fields of this ending carry what only the REST gateway sets.
BODY = "_body"


def merge_fields(message: Message, fields: Mapping[str, Any], within: str = "", levels: int = LEVELS_MAX) -> None:
    """Set the fields of a message that a JSON object gives; null leaves a field at its default.

    `within` is the path of the message. Raises NimbusError with FIELD_UNKNOWN, FIELD_INVALID or FIELD_TOO_LONG, and the
    path of what is wrong.
    """
    for name, value in fields.items():
        field = message.DESCRIPTOR.fields_by_name.get(name)
        path = _path(within, name[:100])
        if field is None or name.endswith(BODY):
            what = f"{within} has" if within else "This call has"
            raise field_error(Reason.FIELD_UNKNOWN, path, f"{what} no such field: {name[:100]}.")
        if value is None:
            continue
        _refuse_second(message, field, within, path)
        if field.is_repeated:
            _extend(message, field, value, path, levels)
        elif _has_fields(field):
            inner = getattr(message, name)
            inner.SetInParent()
            _merge(inner, value, path, levels)
        else:
            set_field(message, field, _enum_value(field, value, path), path)


def _extend(message: Message, field: Any, value: object, path: str, levels: int) -> None:
    if not isinstance(value, list):
        raise field_error(Reason.FIELD_INVALID, path, f"{path} must be a list.")
    if len(value) > ITEMS_MAX:
        raise field_error(Reason.FIELD_TOO_LONG, path, f"{path} must have at most {ITEMS_MAX} items.")
    items = getattr(message, field.name)
    if field.message_type is Value.DESCRIPTOR:
        for index, item in enumerate(value):
            _set_value(items.add(), item, path, index)
        return
    for index, item in enumerate(value):
        at = f"{path}[{index}]"
        if _has_fields(field):
            _merge(items.add(), item, at, levels)
        elif field.type == field.TYPE_STRING and isinstance(item, str):
            items.append(item)
        else:
            one = type(message)()
            set_field(one, field, [_enum_value(field, item, at)], at)
            items.extend(getattr(one, field.name))


def _merge(message: Message, value: object, path: str, levels: int) -> None:
    if levels == 0:
        raise field_error(Reason.FIELD_INVALID, path, f"{path} is too deeply nested.")
    if message.DESCRIPTOR is RetentionBracket.DESCRIPTOR and isinstance(value, list) and len(value) == 2:
        value = dict(zip(("first", "last"), value, strict=True))
    if not isinstance(value, dict):
        raise field_error(Reason.FIELD_INVALID, path, f"{path} must be an object.")
    merge_fields(message, value, path, levels - 1)


def _set_value(message: Value, value: object, path: str, index: int) -> None:
    """By hand, because json_format takes ten times as long, and there may be many."""
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = value
    else:
        at = f"{path}[{index}]"
        raise field_error(Reason.FIELD_INVALID, at, f"{at} must be a text, a number or a boolean.")


def _refuse_second(message: Message, field: Any, within: str, path: str) -> None:
    oneof = field.containing_oneof
    other = message.WhichOneof(oneof.name) if oneof is not None else None
    if other is not None:
        raise field_error(Reason.FIELD_INVALID, path, f"{path} must not stand beside {_path(within, other)}.")


def _has_fields(field: Any) -> bool:
    """Whether it is a message whose fields stand in a JSON object."""
    return field.message_type is not None and field.message_type not in {Value.DESCRIPTOR, Timestamp.DESCRIPTOR}


def _enum_value(field: Any, value: object, path: str) -> object:
    """The number of the value of an enum field, named with or without its prefix; other fields' values as they are."""
    enum = field.enum_type
    if enum is None:
        return value
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    if isinstance(value, str):
        found = enum.values_by_name.get(value) or enum.values_by_name.get(prefix + value)
    else:
        found = enum.values_by_number.get(value) if type(value) is int else None
    if found is None:
        names = [one.name.removeprefix(prefix) for one in enum.values if one.number]
        raise field_error(Reason.FIELD_INVALID, path, f"{path} must be one of {', '.join(names)}.")
    return found.number


def _path(within: str, name: str) -> str:
    return f"{within}.{name}" if within else name

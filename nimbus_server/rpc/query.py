"""The query of a REST call, read strictly and by us, as JSON bodies are.

Envoy's transcoder takes other forms of times than the rest of the API, and names fields in several ways.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.times import EXAMPLE, read_time

PARAMETERS_MAX = 200

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")
_WHOLE_NUMBERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}


def parse_query(query: str) -> dict[str, list[str]]:
    """The values of each parameter; `+` is a space. Raises NimbusError with REQUEST_UNPARSABLE."""
    try:
        if _BAD_ESCAPE.search(query):
            raise ValueError(query)
        return parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise NimbusError(
            Reason.REQUEST_UNPARSABLE,
            f"The query must be percent-encoded UTF-8 and have at most {PARAMETERS_MAX} parameters.",
        ) from None


def merge_query(request: Message, given: Mapping[str, Sequence[str]]) -> None:
    """Set the fields of a request that a query gives; those that are set already stand in the path.

    Raises NimbusError with FIELD_UNKNOWN or FIELD_INVALID.
    """
    in_path = {field.name for field, _ in request.ListFields()}
    for name, values in given.items():
        field = request.DESCRIPTOR.fields_by_name.get(name)
        if field is None or name.endswith("_body") or name in in_path:
            raise field_error(Reason.FIELD_UNKNOWN, name[:100], "This route has no such parameter.")
        if field.is_repeated:
            getattr(request, name).extend(values)
        elif len(values) > 1:
            raise field_error(Reason.FIELD_INVALID, name, f"{name} may be given once.")
        else:
            set_field(request, field, values[0])


def set_field(request: Message, field: Any, value: object, path: str | None = None) -> None:
    """Set a field, by its descriptor, to a value of JSON, or to text as a query has it.

    Raises NimbusError with FIELD_INVALID; there the field is called `path`, where it has one.
    """
    name, is_time = field.name, field.message_type is Timestamp.DESCRIPTOR
    text = value if isinstance(value, str) and not field.is_repeated else None
    try:
        # By hand, because json_format takes long for text, and reads as numbers whatever int() does, such as 1_000.
        if text is not None and is_time:
            getattr(request, name).FromDatetime(read_time(text))
        elif text is not None and field.type == FieldDescriptor.TYPE_STRING:
            setattr(request, name, text)
        elif text is not None and field.cpp_type in _WHOLE_NUMBERS:
            setattr(request, name, int(text if _WHOLE_NUMBER.fullmatch(text) else ""))
        else:
            json_format.ParseDict({name: value}, request)
    except (ValueError, json_format.ParseError):
        what = f"must be a time such as {EXAMPLE} (RFC 3339)" if is_time else "has a value of the wrong type"
        raise field_error(Reason.FIELD_INVALID, path or name, f"{path or name} {what}.") from None

"""JSON bodies of REST calls, read strictly.

Envoy's transcoder drops what it does not know of a JSON body, without a word (envoyproxy/envoy#46623): a mistyped
`grace_second` would kill a key at once. So the bodies come as they were sent, and are read here.
"""

from typing import Any

import orjson

from nimbus_server import strict_json
from nimbus_server.errors import NimbusError, Reason, field_error
from nimbus_server.rpc.json_fields import merge_fields

JSON_BODY = "json_body"


def read_json_body(request: Any, rest_path: str | None) -> None:
    """Merge the JSON object in `request.json_body` into the request; no body is an empty object.

    Raises NimbusError with REQUEST_UNPARSABLE, FIELD_UNKNOWN or FIELD_INVALID.
    """
    if rest_path is None:
        if request.HasField(JSON_BODY):
            raise field_error(Reason.FIELD_INVALID, JSON_BODY, f"{JSON_BODY} is for the REST gateway alone.")
        return
    refuse_query(rest_path)
    body = request.json_body.data
    try:
        fields = orjson.loads(body) if body else {}
        repeated = strict_json.repeated_key(body) if body else None
    except ValueError as error:
        raise NimbusError(Reason.REQUEST_UNPARSABLE, f"The body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise NimbusError(Reason.REQUEST_UNPARSABLE, "The body must be a JSON object.")
    if repeated is not None:
        raise field_error(Reason.FIELD_INVALID, repeated[:100], "A field must not be given twice.")
    request.ClearField(JSON_BODY)
    in_path = {field.name for field, _ in request.ListFields()}
    for name in fields:
        if name in in_path:
            raise field_error(Reason.FIELD_INVALID, name, f"{name} stands in the path already.")
    merge_fields(request, fields)


def refuse_query(rest_path: str) -> None:
    """Raise NimbusError with FIELD_UNKNOWN where fields stand in the query: a URL ends up in logs."""
    if rest_path.partition("?")[2]:
        raise NimbusError(Reason.FIELD_UNKNOWN, "This call takes its fields in the body, and none in the query.")

"""`python -m nimbus_client.sign KEY_ID SECRET METHOD JSON` prints the three headers that sign a call of grpcurl.

METHOD is the RPC's full name, JSON the message that grpcurl is given with `-d`. grpcurl writes fields in the order of
their numbers, as this does; a message with a map of several entries has no such order, so send one of those with the
client instead.
"""

import importlib
import sys

from google.protobuf import json_format
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from nimbus_client.signing import signature_headers

SERVICES = ("auth", "event", "health", "metrics", "project", "stream")


def headers_for(key_id: str, secret: str, method: str, message: str) -> dict[str, str]:
    """The headers that sign a call of `method` with the JSON form of its request.

    Raises KeyError for an unknown method and json_format.ParseError for a message that is not its request.
    """
    for service in SERVICES:
        importlib.import_module(f"nimbus.v1.{service}_service_pb2")
    descriptor = Default().FindMethodByName(method.strip("/").replace("/", "."))
    request = json_format.Parse(message, GetMessageClass(descriptor.input_type)())
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    return signature_headers(key_id, secret, path, request.SerializeToString(deterministic=True))


def main() -> int:
    """Print one header a line."""
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for name, value in headers_for(*sys.argv[1:]).items():
            print(f"{name}: {value}")
    except (KeyError, TypeError, json_format.ParseError, UnicodeError) as error:
        print(f"This can't be signed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

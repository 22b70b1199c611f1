"""What Nimbus offers, read from its descriptors and its OpenAPI document, so that tests cover what is added to them."""

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nimbus.v1 import access_pb2
from nimbus_server.rpc.server import SERVICES


@dataclass(frozen=True)
class Binding:
    """A route of an RPC, such as `GET /v1/projects/{project_id}`; `body` is as in google.api.http, "" for none."""

    method: str
    path: str
    body: str


@dataclass(frozen=True)
class Rpc:
    """One RPC: `name` as in `EventService.ListEvents`, `wire` as it travels.

    `takes_stream` says that its requests are streamed, and `gives_stream` that its responses are.
    """

    name: str
    wire: str
    access: int
    request: type[Message]
    response: type[Message]
    bindings: tuple[Binding, ...]
    takes_stream: bool = False
    gives_stream: bool = False

    @property
    def fields(self) -> set[str]:
        """The names of its request's fields, without those that the gateway alone sets."""
        return {field for field in self.request.DESCRIPTOR.fields_by_name if not field.endswith("_body")}


@dataclass(frozen=True)
class Route:
    """An operation of the OpenAPI document."""

    method: str
    path: str
    body_schema: dict[str, Any] | None
    query: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def filled(self, value: str) -> str:
        """The path with `value` for each of its parameters."""
        return re.sub(r"{[^}]+}", value, self.path)


def _bindings(method: MethodDescriptor) -> tuple[Binding, ...]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    rules: list[http_pb2.HttpRule] = [rule, *rule.additional_bindings]
    verbs = ((r.WhichOneof("pattern"), r) for r in rules)
    return tuple(Binding(verb.upper(), getattr(r, verb), r.body) for verb, r in verbs if verb)


def _rpc(method: MethodDescriptor) -> Rpc:
    service = method.containing_service
    return Rpc(
        f"{service.name}.{method.name}",
        f"/{service.full_name}/{method.name}",
        method.GetOptions().Extensions[access_pb2.access],
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        _bindings(method),
        method.client_streaming,
        method.server_streaming,
    )


def _openapi() -> dict[str, Any]:
    spec = find_spec("nimbus")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found: dict[str, Any] = json.loads((Path(next(iter(spec.submodule_search_locations))) / "openapi.json").read_text())
    return found


def _schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema: dict[str, Any] = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _routes() -> list[Route]:
    document = _openapi()
    return [
        Route(
            verb.upper(),
            path,
            _schema(document, operation),
            tuple(p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"),
        )
        for path, operations in document["paths"].items()
        for verb, operation in operations.items()
    ]


# Unary ones and streams.
RPCS = {rpc.name: rpc for service in SERVICES.values() for rpc in map(_rpc, service.methods)}
ROUTES = _routes()

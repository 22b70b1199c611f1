"""Describes the API as JSON over HTTP: an OpenAPI 3.1 document, from compiled protos.

It says what Envoy's gRPC-JSON transcoder does as Nimbus configures it: routes by `google/api/http.proto`, names as in
the protos, errors as google.rpc.Status. Who may call comes from `nimbus/v1/access.proto`, descriptions from comments.
"""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from openapi_schemas import HTTP_BODY, WELL_KNOWN, Json, Schemas, comments, type_name

PACKAGE = "nimbus.v1"
SIGNATURE = ("x-api-key-id", "x-api-timestamp", "x-api-signature")
BEARER: Json = {"bearer": []}
SECURITY: dict[str, list[Json]] = {
    "ACCESS_PUBLIC": [],
    "ACCESS_USER": [BEARER],
    "ACCESS_REFRESH": [BEARER],
    "ACCESS_PROJECT": [BEARER, {header: [] for header in SIGNATURE}],
    "ACCESS_STREAM": [{}, BEARER, {header: [] for header in SIGNATURE}],
}


def build(image: FileDescriptorSet, *, version: str, description: str) -> Json:
    """Return the document. `image` holds the protos with their imports and source info."""
    return _Document(image).build(version, description)


class _Document:
    def __init__(self, image: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        for file in image.file:
            self._pool.Add(file)
        self._files = [self._pool.FindFileByName(file.name) for file in image.file if file.package == PACKAGE]
        self._comments = comments(image, PACKAGE)
        self._schemas = Schemas(self._pool, self._comments)

    def build(self, version: str, description: str) -> Json:
        services = [service for file in self._files for service in file.services_by_name.values()]
        paths: dict[str, Json] = {}
        for service in services:
            for method in service.methods:
                for path, verb, operation in self._operations(method):
                    paths.setdefault(path, {})[verb] = operation
        error = self._schemas.error(f"{PACKAGE}.ErrorReason")
        return {
            "openapi": "3.1.0",
            "info": {"title": "Nimbus API", "version": version, "description": description},
            "servers": [{"url": "/"}],
            "tags": [{"name": service.name, **self._schemas.described(service.full_name)} for service in services],
            "paths": paths,
            "components": {
                "schemas": self._schemas.components,
                "responses": {"Error": {"description": "The call failed; `details` say why.", "content": _json(error)}},
                "securitySchemes": self._security_schemes(),
            },
        }

    def _operations(self, method: MethodDescriptor) -> Iterator[tuple[str, str, Json]]:
        """Yield path, verb and operation for each route to a method."""
        http, access = self._options(method)
        for number, rule in enumerate([http, *http.additional_bindings], start=1):
            verb = rule.WhichOneof("pattern")
            if verb is None:
                return  # A method for gRPC alone.
            path = re.sub(r"=[^}]*", "", getattr(rule, verb))  # OpenAPI has no `{name=pattern}`.
            name = f"{method.containing_service.name}_{method.name}" + (f"_{number}" if number > 1 else "")
            yield (
                path,
                verb,
                {
                    **self._summary(method),
                    "operationId": name,
                    "tags": [method.containing_service.name],
                    "security": SECURITY[access],
                    **self._request(method.input_type, rule.body, set(re.findall(r"{(.+?)}", path))),
                    "responses": {
                        "200": self._response(method.output_type, rule.response_body),
                        "default": {"$ref": "#/components/responses/Error"},
                    },
                },
            )

    def _options(self, method: MethodDescriptor) -> tuple[Any, str]:
        """Return a method's google.api.HttpRule, and the name of its access.

        Both are read with classes made from the image: the generated ones may not exist yet.
        """
        options: Any = GetMessageClass(self._pool.FindMessageTypeByName("google.protobuf.MethodOptions"))()
        options.ParseFromString(method.GetOptions().SerializeToString())
        access = options.Extensions[self._pool.FindExtensionByName(f"{PACKAGE}.access")]
        names = self._pool.FindEnumTypeByName(f"{PACKAGE}.Access").values_by_number
        return options.Extensions[self._pool.FindExtensionByName("google.api.http")], names[access].name

    def _summary(self, method: MethodDescriptor) -> Json:
        first, *rest = re.split(r"\.\s+", self._comments.get(method.full_name, ""), maxsplit=1)
        return {"summary": " ".join(first.removesuffix(".").split()), **({"description": rest[0]} if rest else {})}

    def _request(self, message: Descriptor, body: str, in_path: set[str]) -> Json:
        """Return parameters and body. What stands in neither path nor body is a query parameter."""
        body_field = message.fields_by_name.get(body)
        if body_field is not None and type_name(body_field) == HTTP_BODY:
            body = "*"  # The server reads the message's JSON form from the bytes itself.
        # A message in a body may hold others of its kind, without end.
        leaves = [(f.name, f) for f in message.fields] if body == "*" else _leaves(message)
        parameters = [
            self._parameter(name, "path" if name in in_path else "query", field)
            for name, field in leaves
            if name in in_path or body not in {"*", name.split(".")[0]}
        ]
        request: Json = {"parameters": parameters} if parameters else {}
        in_body = [f for f in message.fields if f.name not in in_path and body in {"*", f.name}]
        if not in_body:
            return request
        if body != "*":
            schema = self._schemas.field(in_body[0])
        elif in_path:
            schema = self._schemas.message(message, without=in_path)
        else:
            schema = self._schemas.reference(message)
        required = any(self._schemas.is_required(field) for field in in_body)
        return request | {"requestBody": {"required": required, "content": _json(schema)}}

    def _parameter(self, name: str, where: str, field: FieldDescriptor) -> Json:
        return {
            "name": name,
            "in": where,
            "required": where == "path" or self._schemas.is_required(field),
            **self._schemas.described(field.full_name),
            **({"style": "form", "explode": True} if field.is_repeated else {}),
            "schema": self._schemas.type(field),
        }

    def _response(self, message: Descriptor, body: str) -> Json:
        if message.full_name == HTTP_BODY:
            return {
                "description": "Server-sent events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        field = message.fields_by_name.get(body)
        schema = self._schemas.reference(message) if field is None else self._schemas.type(field)
        return {**self._schemas.described((field or message).full_name), "content": _json(schema)}

    def _security_schemes(self) -> Json:
        person, renewal, machine = (
            self._comments[f"{PACKAGE}.Access.ACCESS_{who}"] for who in ("USER", "REFRESH", "PROJECT")
        )
        bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": f"{person}\n\n{renewal}"}
        headers: Json = {header: {"type": "apiKey", "in": "header", "name": header} for header in SIGNATURE}
        headers["x-api-signature"]["description"] = machine
        return {"bearer": bearer, **headers}


def _leaves(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Yield what a path or a query can name: the fields, and those of messages in them as `message.field`."""
    for field in message.fields:
        if field.message_type and not field.is_repeated and type_name(field) not in WELL_KNOWN:
            yield from _leaves(field.message_type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}

"""JSON Schemas of protobuf messages, in the JSON form that the protobuf specification gives them (ProtoJSON)."""

import re
import textwrap
from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

Json = dict[str, Any]

HTTP_BODY = "google.api.HttpBody"
_INT32: Json = {"type": "integer", "format": "int32"}
# ProtoJSON writes 64-bit integers as strings: a JSON number keeps only 53 bits of them in most readers.
_INT64: Json = {"type": "string", "format": "int64"}
SCALARS: dict[int, Json] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _INT64,
    FieldDescriptor.TYPE_FIXED64: _INT64,
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}
WELL_KNOWN: dict[str, Json] = {
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
# The details that an error may carry.
ERROR_DETAILS = {
    "ErrorInfo": "Why the call failed, for programs. Every error carries one.",
    "BadRequest": "Which fields are wrong.",
    "RetryInfo": "How long to wait before the next try.",
}


class Schemas:
    """The schemas of an OpenAPI document: a message gets its own, under `components`, when it is first referred to."""

    def __init__(self, pool: DescriptorPool, comments: dict[str, str]) -> None:
        """Start without schemas. `comments` holds descriptions by full name."""
        self.components: dict[str, Json] = {}
        self._pool = pool
        self._comments = comments

    def reference(self, message: Descriptor) -> Json:
        """Return the schema of a message's JSON form."""
        if message.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[message.full_name])
        name = message.full_name.removeprefix(f"{message.file.package}.")
        if name not in self.components:
            self.components[name] = {}  # A message may refer to itself.
            self.components[name] = self.message(message)
        return {"$ref": f"#/components/schemas/{name}"}

    def message(self, message: Descriptor, without: Collection[str] = ()) -> Json:
        """Return a message's schema, without some of its fields.

        A field that carries an HTTP body is in none: it is the body, not a part of it.
        """
        fields = [f for f in message.fields if f.name not in without and type_name(f) != HTTP_BODY]
        properties = {f.name: self.field(f) for f in fields if not in_oneof(f)}
        schema: Json = {"type": "object", **self.described(message.full_name), "properties": properties}
        if required := [f.name for f in fields if self.is_required(f)]:
            schema["required"] = required
        choices = [
            at_most_one({f.name: self.field(f) for f in oneof.fields})
            for oneof in message.oneofs
            if in_oneof(oneof.fields[0])
        ]
        return schema | ({"allOf": choices} if len(choices) > 1 else choices[0] if choices else {})

    def field(self, field: FieldDescriptor) -> Json:
        """Return a field's schema. Sample values are those that its comment names."""
        oneof = [field.containing_oneof.full_name] if field.containing_oneof and in_oneof(field) else []
        schema = self.type(field) | self.described(*oneof, field.full_name)
        sample = re.search(r"(?:such as|Always) `([^`]+)`", schema.get("description", ""))
        return schema | ({"examples": [sample[1]]} if sample and schema.get("type") == "string" else {})

    def type(self, field: FieldDescriptor) -> Json:
        """Return the schema of a field's JSON form."""
        if field.message_type and field.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self.type(field.message_type.fields_by_name["value"])}
        if field.message_type:
            schema = self.reference(field.message_type)
        elif field.enum_type:
            schema = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
        else:
            schema = dict(SCALARS[field.type])
            if schema == {"type": "string"} and re.search(r"\bUUID\b", self._comments.get(field.full_name, "")):
                schema["format"] = "uuid"
        return {"type": "array", "items": schema} if field.is_repeated else schema

    def described(self, *full_names: str) -> Json:
        """Return the `description` of something with comments."""
        found = [self._comments[name] for name in full_names if name in self._comments]
        return {"description": "\n\n".join(found)} if found else {}

    def is_required(self, field: FieldDescriptor) -> bool:
        """Tell whether a caller must set the field: its comment says so first."""
        return self._comments.get(field.full_name, "").startswith("Required.")

    def error(self, reasons: str) -> Json:
        """Return the schema of an error: google.rpc.Status, with the reasons that an enum of that name lists."""
        enum = self._pool.FindEnumTypeByName(reasons)
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        named = {
            value.name.removeprefix(prefix): self._comments[f"{reasons}.{value.name}"] for value in enum.values[1:]
        }
        listed = "\n".join(f"- `{name}`: {first_paragraph(comment)}" for name, comment in named.items())
        self.components[enum.name] = {"type": "string", "enum": list(named), "description": listed}
        reference = self.reference(self._pool.FindMessageTypeByName("google.rpc.Status"))
        status = self.components["Status"]
        status["description"] = self._comments[reasons]
        status["properties"]["details"]["items"] = {"anyOf": [self._error_detail(name) for name in ERROR_DETAILS]}
        self.components["ErrorInfo"]["properties"]["reason"] = {"$ref": f"#/components/schemas/{enum.name}"}
        return reference

    def _error_detail(self, name: str) -> Json:
        full_name = f"google.rpc.{name}"
        reference = self.reference(self._pool.FindMessageTypeByName(full_name))
        self.components[name]["description"] = ERROR_DETAILS[name]
        of_type = {"const": f"type.googleapis.com/{full_name}"}
        return reference | {"properties": {"@type": of_type}, "required": ["@type"]}


def first_paragraph(comment: str) -> str:
    """Return a comment's first paragraph, on one line."""
    return " ".join(comment.split("\n\n", maxsplit=1)[0].split())


def type_name(field: FieldDescriptor) -> str:
    """Return the full name of the message that a field holds, or nothing where it holds none."""
    return field.message_type.full_name if field.message_type else ""


def in_oneof(field: FieldDescriptor) -> bool:
    """Tell whether a field stands in a `oneof`. The compiler makes one for each `optional` field, too."""
    return field.containing_oneof is not None and field.containing_oneof.name != f"_{field.name}"


def at_most_one(choices: dict[str, Json]) -> Json:
    """Return what a `oneof` allows: one of its fields, or none."""
    one = [{"title": name, "properties": {name: schema}, "required": [name]} for name, schema in choices.items()]
    none = {"title": "none", "not": {"anyOf": [{"required": [name]} for name in choices]}}
    return {"oneOf": [*one, none]}


def comments(image: FileDescriptorSet, package: str) -> dict[str, str]:
    """Return the comment before each declaration of a package, by its full name (enum values below their enum).

    Paths into a file are those of SourceCodeInfo in `google/protobuf/descriptor.proto`.
    """
    found = {}
    for file in image.file:
        names = dict(declarations(file, package)) if file.package == package else {}
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                found[name] = textwrap.dedent(location.leading_comments).strip()
    return found


def declarations(node: Message, name: str, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path and full name of all that is declared in a descriptor."""
    yield path, name
    for field in node.DESCRIPTOR.fields:
        if field.is_repeated and field.message_type and "name" in field.message_type.fields_by_name:
            for index, child in enumerate(getattr(node, field.name)):
                yield from declarations(child, f"{name}.{child.name}", (*path, field.number, index))

"""gen/nimbus/openapi.json against the protos, as the generated stubs know them."""

import importlib
import json
import pkgutil
from importlib.resources import files
from typing import Any

import pytest
from google.api.annotations_pb2 import http
from google.protobuf.descriptor import MethodDescriptor
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import nimbus.v1
from nimbus.v1 import access_pb2

DOCUMENT: dict[str, Any] = json.loads(files("nimbus").joinpath("openapi.json").read_text("utf-8"))
OPERATIONS = {(verb, path): operation for path, verbs in DOCUMENT["paths"].items() for verb, operation in verbs.items()}

BEARER: dict[str, list[str]] = {"bearer": []}
SIGNATURE: dict[str, list[str]] = {"x-api-key-id": [], "x-api-timestamp": [], "x-api-signature": []}
SECURITY = {
    access_pb2.ACCESS_PUBLIC: [],
    access_pb2.ACCESS_USER: [BEARER],
    access_pb2.ACCESS_REFRESH: [BEARER],
    access_pb2.ACCESS_PROJECT: [BEARER, SIGNATURE],
    access_pb2.ACCESS_STREAM: [{}, BEARER, SIGNATURE],
}


def rpcs() -> list[MethodDescriptor]:
    """Return every RPC of every proto."""
    modules = [module.name for module in pkgutil.iter_modules(nimbus.v1.__path__) if module.name.endswith("_pb2")]
    protos = [importlib.import_module(f"nimbus.v1.{name}").DESCRIPTOR for name in modules]
    return [rpc for proto in protos for service in proto.services_by_name.values() for rpc in service.methods]


def routes(rpc: MethodDescriptor) -> list[tuple[str, str]]:
    """Return verb and path of each HTTP binding."""
    rule = rpc.GetOptions().Extensions[http]
    bindings = [(one, one.WhichOneof("pattern")) for one in (rule, *rule.additional_bindings)]
    return [(verb, getattr(one, verb)) for one, verb in bindings if verb]


def schema_of(name: str) -> dict[str, Any]:
    """Return a schema in which references resolve."""
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.parametrize("rpc", rpcs(), ids=lambda rpc: rpc.name)
def test_every_route_of_an_rpc_is_described(rpc: MethodDescriptor) -> None:
    access = rpc.GetOptions().Extensions[access_pb2.access]
    for verb, path in routes(rpc):
        operation = OPERATIONS[verb, path]
        assert operation["summary"]
        assert operation["security"] == SECURITY[access]
        assert operation["tags"] == [rpc.containing_service.name]
        assert {"200", "default"} == set(operation["responses"])


def test_nothing_else_is_described() -> None:
    assert set(OPERATIONS) == {route for rpc in rpcs() for route in routes(rpc)}


def test_every_security_scheme_is_declared() -> None:
    assert set(DOCUMENT["components"]["securitySchemes"]) == {*BEARER, *SIGNATURE}


def test_a_field_stands_in_path_query_or_body_and_nowhere_else() -> None:
    update = OPERATIONS["patch", "/v1/projects/{project_id}"]
    assert [(p["name"], p["in"], p["required"]) for p in update["parameters"]] == [("project_id", "path", True)]
    body = update["requestBody"]["content"]["application/json"]["schema"]
    assert (list(body["properties"]), "required" in body) == (["name", "timezone"], False)

    query = {p["name"]: p for p in OPERATIONS["get", "/v1/metrics"]["parameters"]}
    assert {p["in"] for p in query.values()} == {"query"}
    assert [name for name, p in query.items() if p["required"]] == ["project_id"]
    assert query["name"]["explode"]
    assert query["name"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert query["start"]["schema"] == {"type": "string", "format": "date-time"}


def test_a_request_without_fields_has_no_body() -> None:
    assert "requestBody" not in OPERATIONS["post", "/v1/auth/refresh"]


@pytest.mark.parametrize(
    ("event", "valid"),
    [
        ({"name": "page_view"}, True),
        ({"name": "page_view", "props": {"plan": "pro"}}, True),
        ({"name": "page_view", "props_json": "e30="}, True),
        ({"name": "page_view", "props": {}, "props_json": "e30="}, False),
        ({"props": {}}, False),
        ({"name": 1}, False),
    ],
)
def test_the_body_of_ingest_is_the_json_form_of_the_request(event: dict[str, object], *, valid: bool) -> None:
    body = OPERATIONS["post", "/v1/events"]["requestBody"]["content"]["application/json"]["schema"]
    request = {"project_id": "6b0c2f6e-3a0e-4e57-9a55-1d2f0f6f0a11", "events": [event]}
    validator = OAS31Validator({**body, "components": DOCUMENT["components"]})
    assert validator.is_valid(request) is valid
    assert "http_body" not in DOCUMENT["components"]["schemas"]["IngestEventsRequest"]["properties"]


@pytest.mark.parametrize(
    ("detail", "valid"),
    [
        ({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "OVERLOADED", "domain": "nimbus"}, True),
        ({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1.500s"}, True),
        ({"@type": "type.googleapis.com/google.rpc.BadRequest", "field_violations": [{"field": "name"}]}, True),
        ({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "NO_SUCH_REASON"}, False),
        ({"reason": "OVERLOADED"}, False),
    ],
)
def test_an_error_carries_the_details_that_envoy_prints(detail: dict[str, object], *, valid: bool) -> None:
    error = DOCUMENT["components"]["responses"]["Error"]["content"]["application/json"]["schema"]
    assert error == {"$ref": "#/components/schemas/Status"}
    status = {"code": 8, "message": "The server is busy.", "details": [detail]}
    assert OAS31Validator(schema_of("Status")).is_valid(status) is valid


def test_64_bit_numbers_are_strings_and_metric_values_numbers() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["StoredEvent"]["properties"]["seq"]["type"] == "string"
    assert schemas["MetricPoint"]["properties"]["value"]["type"] == "number"

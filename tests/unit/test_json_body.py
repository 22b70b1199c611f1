"""JSON bodies of REST calls are read strictly: what is not understood is refused, never dropped."""

import re
from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from nimbus.v1.auth_service_pb2 import LoginRequest
from nimbus.v1.project_service_pb2 import CreateProjectRequest, RotateKeysRequest, UpdateProjectRequest
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.json_body import read_json_body
from nimbus_server.rpc.registry import rpcs_of
from nimbus_server.rpc.server import SERVICES

WITH_BODY = [rpc.request_class for s in SERVICES.values() for rpc in rpcs_of(s).values() if rpc.has_json_body]
CALLERS_FAULTS = {Reason.REQUEST_UNPARSABLE, Reason.FIELD_UNKNOWN, Reason.FIELD_INVALID}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
NAMES = st.sampled_from(
    ["email", "password", "name", "project_id", "grace_seconds", "graceSeconds", "json_body", "@type"]
)


def read(request: Any, body: object) -> Any:
    request.json_body.data = body if isinstance(body, bytes) else orjson.dumps(body)
    read_json_body(request, "/v1/somewhere")
    return request


def test_the_calls_with_a_json_body_are_these() -> None:
    names = {request.DESCRIPTOR.name for request in WITH_BODY}
    assert names == {
        "RegisterRequest",
        "LoginRequest",
        "CreateProjectRequest",
        "UpdateProjectRequest",
        "RotateKeysRequest",
        "CreateStreamTokenRequest",
        "AckPositionRequest",
        "QueryTrendRequest",
        "QueryFunnelRequest",
        "QueryRetentionRequest",
        "QueryPathsRequest",
        "ListPeopleBehindRequest",
    }


def test_fields_of_the_body_become_fields_of_the_request() -> None:
    assert read(LoginRequest(), {"email": "a@b.c", "password": "p"}) == LoginRequest(email="a@b.c", password="p")
    assert read(RotateKeysRequest(project_id="p"), {"grace_seconds": 60}) == RotateKeysRequest(
        project_id="p", grace_seconds=60
    )


@pytest.mark.parametrize("body", [b"", b"{}", b' {"grace_seconds": null} '])
def test_no_body_and_null_leave_the_defaults(body: bytes) -> None:
    assert read(RotateKeysRequest(project_id="p"), body) == RotateKeysRequest(project_id="p")


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"grace_second": 60}, Reason.FIELD_UNKNOWN, "grace_second"),
        ({"graceSeconds": 60}, Reason.FIELD_UNKNOWN, "graceSeconds"),
        ({"json_body": {}}, Reason.FIELD_UNKNOWN, "json_body"),
        ({"x" * 5000: 1}, Reason.FIELD_UNKNOWN, "x" * 100),
        ({"project_id": "someone else's"}, Reason.FIELD_INVALID, "project_id"),
        ({"grace_seconds": True}, Reason.FIELD_INVALID, "grace_seconds"),
        ({"grace_seconds": 1.5}, Reason.FIELD_INVALID, "grace_seconds"),
        ({"grace_seconds": 2**31}, Reason.FIELD_INVALID, "grace_seconds"),
        ({"grace_seconds": "soon"}, Reason.FIELD_INVALID, "grace_seconds"),
        ({"grace_seconds": [60]}, Reason.FIELD_INVALID, "grace_seconds"),
    ],
)
def test_a_field_that_is_unknown_or_wrong_is_named(body: dict[str, Any], reason: Reason, field: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read(RotateKeysRequest(project_id="p"), body)
    assert [violation.field for violation in failed.value.violations] == [field]


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"null", b'{"name": ', b'{"name": "\xff"}', b'{"name": NaN}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_unparsable(body: bytes) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.REQUEST_UNPARSABLE):
        read(CreateProjectRequest(), body)


def test_a_wrong_password_type_is_not_repeated_in_the_error() -> None:
    with pytest.raises(NimbusError) as failed:
        read(LoginRequest(), {"password": ["hunter2"]})
    assert not re.search("hunter2", failed.value.message + str(failed.value.violations))


@pytest.mark.parametrize("request_class", WITH_BODY, ids=lambda c: c.DESCRIPTOR.name)
def test_over_grpc_a_json_body_is_refused(request_class: type[Message]) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID):
        read_json_body(request_class(json_body=HttpBody(data=b"{}")), None)
    read_json_body(request_class(), None)


@given(st.sampled_from(WITH_BODY), st.dictionaries(NAMES, VALUES, max_size=3) | VALUES | st.binary())
def test_no_body_makes_another_error(request_class: type[Message], body: object) -> None:
    try:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
    except orjson.JSONEncodeError:
        data = repr(body).encode("utf-8", "surrogatepass")
    request = request_class(json_body=HttpBody(data=data))
    try:
        read_json_body(request, "/v1/somewhere")
    except NimbusError as error:
        assert error.reason in CALLERS_FAULTS  # noqa: PT017
    else:
        assert not request.HasField("json_body")


def test_fields_of_the_path_and_of_the_body_make_one_request() -> None:
    assert read(UpdateProjectRequest(project_id="p"), {"name": "n"}) == UpdateProjectRequest(project_id="p", name="n")

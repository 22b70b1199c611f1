"""A person with grpcurl and no proto files: reflection, health, and the way from registration to a chart."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Stack
from surface import RPCS

GRPCURL = Path(sys.executable).with_name("grpcurl")
Grpcurl = Callable[..., str]


@pytest.fixture(params=["native port", "through Envoy"])
def grpcurl(request: pytest.FixtureRequest, stack: Stack) -> Grpcurl:
    """Runs the real program against one of the two ports and returns what it prints."""
    target = stack.grpc_target if request.param == "native port" else stack.edge_target

    def run(*arguments: str, data: object = None, token: str = "", status: int = 0) -> str:
        options = ["-d", json.dumps(data)] if data is not None else []
        if token:
            options += ["-H", f"authorization: Bearer {token}"]
        ran = subprocess.run(
            [GRPCURL, "-plaintext", "-max-time", "20", *options, target, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    return run


def test_services_are_listed_and_described(grpcurl: Grpcurl) -> None:
    services = set(grpcurl("list").split())
    ours = {rpc.wire.split("/")[1] for rpc in RPCS.values()}
    assert ours | {"grpc.health.v1.Health"} <= services
    for service in ours:
        methods = set(grpcurl("list", service).split())
        wired = {rpc.wire for rpc in RPCS.values() if rpc.wire.startswith(f"/{service}/")}
        assert methods == {wire[1:].replace("/", ".") for wire in wired}
    described = grpcurl("describe", "nimbus.v1.Event")
    assert re.search(r"string name = 1;.*optional string user_id = 5;", described, re.DOTALL)
    assert "IngestEventsRequest" in grpcurl("describe", "nimbus.v1.EventService")


def test_the_standard_health_check_serves(grpcurl: Grpcurl) -> None:
    assert json.loads(grpcurl("grpc.health.v1.Health/Check")) == {"status": "SERVING"}


def test_from_registration_to_a_chart(grpcurl: Grpcurl) -> None:
    def call(method: str, data: object = None, token: str = "") -> Any:
        return json.loads(grpcurl(f"nimbus.v1.{method}", data=data, token=token))

    person = {"email": f"{uuid.uuid4().hex}@example.com", "password": "correct horse battery"}
    assert call("AuthService/Register", person)["status"] == "created"
    token = call("AuthService/Login", person)["access_token"]
    project = {"project_id": call("ProjectService/CreateProject", {"name": "demo"}, token)["project"]["id"]}
    events = [
        {"name": "page_view", "ts": "2026-01-02T03:04:05Z", "props": {"page": "/"}, "user_id": "ada"},
        {"name": "page_view", "ts": "2026-01-02T03:05:05Z"},
    ]
    assert call("EventService/IngestEvents", {**project, "events": events}, token) == {"accepted": 2}
    series = call("MetricsService/QueryMetrics", {**project, "bucket": "1h"}, token)["series"]
    assert series == [{"ts": "2026-01-02T03:00:00Z", "value": 2}]
    listed = call("EventService/ListEvents", {**project, "user_id": "ada"}, token)
    assert [item["props"] for item in listed["items"]] == [{"page": "/"}]


def test_an_error_shows_its_code_and_details(grpcurl: Grpcurl) -> None:
    said = grpcurl("nimbus.v1.ProjectService/ListProjects", status=64 + 16)
    assert "Code: Unauthenticated" in said
    assert "CREDENTIALS_MISSING" in said

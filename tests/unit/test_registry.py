"""Every RPC says who may call it, and only these few may be called by anyone."""

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

import nimbus.v1
from nimbus.v1.access_pb2 import Access
from nimbus_server.rpc.registry import rpcs_of
from nimbus_server.rpc.server import SERVICES

MODULES = [
    importlib.import_module(f"nimbus.v1.{module.name}")
    for module in pkgutil.iter_modules(nimbus.v1.__path__)
    if module.name.endswith("_pb2")
]
DECLARED = {service.full_name: service for m in MODULES for service in m.DESCRIPTOR.services_by_name.values()}


def callable_by(access: int) -> set[str]:
    return {
        name.removeprefix("/nimbus.v1.")
        for service in DECLARED.values()
        for name, rpc in rpcs_of(service).items()
        if rpc.access == access
    }


def test_every_declared_service_is_served() -> None:
    assert {service.full_name for service in SERVICES.values()} == set(DECLARED)


@pytest.mark.parametrize("service", DECLARED.values(), ids=lambda s: s.name)
def test_every_rpc_has_an_access_option(service: ServiceDescriptor) -> None:
    assert rpcs_of(service)


def test_an_rpc_without_an_access_option_stops_the_server_from_starting() -> None:
    with pytest.raises(ValueError, match=r"Health\.Check has no \(nimbus\.v1\.access\) option"):
        rpcs_of(health_pb2.DESCRIPTOR.services_by_name["Health"])


def test_anyone_may_register_log_in_and_look_at_health_and_nothing_else() -> None:
    assert callable_by(Access.ACCESS_PUBLIC) == {
        "AuthService/Register",
        "AuthService/Login",
        "HealthService/CheckLiveness",
        "HealthService/CheckReadiness",
        "HealthService/GetHealthDetails",
    }


def test_a_refresh_token_is_good_for_refresh_alone() -> None:
    assert callable_by(Access.ACCESS_REFRESH) == {"AuthService/Refresh"}


def test_a_machine_may_do_no_more_than_write_and_read_its_log() -> None:
    assert callable_by(Access.ACCESS_PROJECT) == {
        "AnalysisService/ListEventNames",
        "AnalysisService/ListPeopleBehind",
        "AnalysisService/ListProperties",
        "AnalysisService/ListPropertyValues",
        "AnalysisService/QueryFunnel",
        "AnalysisService/QueryPaths",
        "AnalysisService/QueryRetention",
        "AnalysisService/QueryTrend",
        "EventService/IngestEventStream",
        "EventService/IngestEvents",
        "EventService/ListEvents",
        "MetricsService/QueryMetrics",
        "StreamService/AckPosition",
        "StreamService/CreateStreamToken",
        "StreamService/DeleteConsumer",
        "StreamService/ListConsumers",
        "StreamService/SubscribeEvents",
    }
    assert callable_by(Access.ACCESS_STREAM) == {"StreamService/StreamEvents"}

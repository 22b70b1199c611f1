"""The gRPC server: Nimbus' services, the standard health service, and reflection."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from nimbus.v1 import (
    analysis_service_pb2,
    auth_service_pb2,
    event_service_pb2,
    health_service_pb2,
    metrics_service_pb2,
    project_service_pb2,
    stream_service_pb2,
)
from nimbus_server.errors import StartupError
from nimbus_server.rpc.address import socket_address
from nimbus_server.rpc.admission import Admission
from nimbus_server.rpc.admit import AdmitInterceptor
from nimbus_server.rpc.observe import ObserveInterceptor
from nimbus_server.rpc.registry import BATCH_BYTES_MAX, handlers_of, rpcs_of
from nimbus_server.rpc.trust import TrustInterceptor

OPTIONS = [
    ("grpc.max_receive_message_length", BATCH_BYTES_MAX),
    # More than a page for the edge, whose events have at most 16 MiB together.
    ("grpc.max_send_message_length", 32 * 1024 * 1024),
    # A client that vanished without a word would hold its streams for ever.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # More than Envoy lets through with the path three times, so that a long path or header is answered by us.
    ("grpc.max_metadata_size", 192 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
]

# The edge asks every half second, and believes the second answer: what it sends until then is still served.
LAME_DUCK_SECONDS = 2.0

SERVICES = {
    service.name: service
    for module in (
        auth_service_pb2,
        project_service_pb2,
        event_service_pb2,
        stream_service_pb2,
        metrics_service_pb2,
        analysis_service_pb2,
        health_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
}


class Server:
    """Serves `servicers` (by the name of their service) behind the interceptor chain.

    Without `admission`, calls need no credentials: for a server that only other processes of Nimbus reach.
    """

    def __init__(self, servicers: Mapping[str, object], admission: Admission | None) -> None:
        services = {name: SERVICES[name] for name in servicers}
        rpcs = {name: rpc for service in services.values() for name, rpc in rpcs_of(service).items()}
        admit = AdmitInterceptor(rpcs, admission) if admission else TrustInterceptor(rpcs)
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(interceptors=[ObserveInterceptor(rpcs), admit], options=OPTIONS)
        self._server.add_generic_rpc_handlers([handlers_of(s, servicers[name]) for name, s in services.items()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [
                *(service.full_name for service in services.values()),
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ],
            self._server,
        )

    def listen_on_socket(self, socket: Path) -> None:
        """Listen on a Unix socket; one that a dead process left is replaced. Raises StartupError."""
        socket.unlink(missing_ok=True)
        self._listen(socket_address(socket))

    def listen_on_port(self, address: str, port: int) -> None:
        """Listen on a TCP port, shared with other processes that ask for the same. Raises StartupError."""
        self._listen(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")

    async def start(self) -> None:
        """Begin to serve and report SERVING."""
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def go_unready(self, seconds_max: float) -> None:
        """Report NOT_SERVING, and serve on until the edge knows it."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(min(LAME_DUCK_SECONDS, seconds_max))

    async def stop(self, drain_seconds: float) -> None:
        """Refuse calls, and give those in flight `drain_seconds` to end."""
        await self._server.stop(drain_seconds)

    def _listen(self, address: str) -> None:
        try:
            self._server.add_insecure_port(address)
        except RuntimeError:
            raise StartupError(f"Nimbus can't listen on {address}: it is taken, or not of this machine.") from None

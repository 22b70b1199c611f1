"""How the supervisor asks workers and Envoy whether they serve."""

import asyncio
import http.client
import os
import socket
from pathlib import Path
from urllib.parse import quote

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from nimbus_server.local.programs import Probe

_ANSWER_SECONDS_MAX = 2.0
# Without it gRPC shares subchannels within a process, and with them the wait after a failed attempt to connect.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


async def worker(path: Path) -> Probe:
    """Whether the worker on this socket says that it serves."""
    async with grpc.aio.insecure_channel(f"unix:{quote(os.fsencode(path))}", options=_OWN_CONNECTION) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            reply = await check(HealthCheckRequest(), timeout=_ANSWER_SECONDS_MAX)
        except grpc.aio.AioRpcError:
            return Probe.SILENT
    return Probe.READY if reply.status == HealthCheckResponse.SERVING else Probe.SILENT


async def edge(host: str, port: int) -> Probe:
    """Whether a request for /readiness gets through Envoy to a worker that is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS_MAX)
    status, _ = await asyncio.to_thread(_get, connection, "/readiness")
    return Probe.READY if status == 200 else Probe.SILENT


async def active_requests(admin_socket: Path) -> int:
    """Requests that Envoy has taken and not yet answered in full, those to its admin interface left out.

    0 where Envoy does not answer.
    """
    _, body = await asyncio.to_thread(_get, _UnixConnection(admin_socket), "/stats?filter=downstream_rq_active$")
    counts = (line.rpartition(": ") for line in body.splitlines() if not line.startswith("http.admin."))
    return sum(int(count) for _, _, count in counts if count.isdigit())


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """Status and text of the answer; 0 and nothing where there is none."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()

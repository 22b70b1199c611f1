"""The Nimbus under load, and a project on it."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc

from nimbus.v1 import auth_service_pb2 as auth
from nimbus.v1 import project_service_pb2 as projects
from nimbus.v1.auth_service_pb2_grpc import AuthServiceStub
from nimbus.v1.project_service_pb2_grpc import ProjectServiceStub
from nimbus_server.accounts.signatures import SignedRequest, signature_of

INGEST_RPC = "/nimbus.v1.EventService/IngestEvents"
INGEST_PATH = "/v1/events"
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where Nimbus is, and a project with its key."""

    url: str
    grpc_target: str
    project_id: str
    key_id: str
    secret: str

    def headers(self, method: str, path: str, body: bytes) -> tuple[tuple[str, str], ...]:
        """The three headers that sign a request now."""
        timestamp = f"{time.time():.6f}"
        request = SignedRequest(self.key_id, timestamp, "", method, path, body)
        return (
            ("x-api-key-id", self.key_id),
            ("x-api-timestamp", timestamp),
            ("x-api-signature", signature_of(request, self.secret)),
        )

    def http_request(self, body: bytes) -> bytes:
        """A signed POST /v1/events as it goes over the wire."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers("POST", INGEST_PATH, body))
        return (
            f"POST {INGEST_PATH} HTTP/1.1\r\nhost: {urlsplit(self.url).netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n"
        ).encode() + body


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel that takes answers of any size."""
    return grpc.aio.insecure_channel(target, (("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),))


@asynccontextmanager
async def temporary_project(url: str, grpc_target: str) -> AsyncIterator[Target]:
    """A project of someone new, deleted on exit. Raises grpc.RpcError."""
    async with open_channel(grpc_target) as channel:
        tokens = await AuthServiceStub(channel).Register(
            auth.RegisterRequest(email=f"bench-{secrets.token_hex(8)}@example.com", password=secrets.token_urlsafe(18)),
            timeout=30,
        )
        bearer = (("authorization", f"Bearer {tokens.access_token}"),)
        stub = ProjectServiceStub(channel)
        created = await stub.CreateProject(projects.CreateProjectRequest(name="nimbus bench"), metadata=bearer)
        project = created.project
        try:
            yield Target(url, grpc_target, project.id, project.api_key_id, created.api_key_secret)
        finally:
            await stub.DeleteProject(projects.DeleteProjectRequest(project_id=project.id), metadata=bearer)

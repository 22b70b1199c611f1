"""The Nimbus under load, and a project on it."""

import asyncio
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
from nimbus_server.bench.failures import failure_of
from nimbus_server.errors import StartupError

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Channels to one address would share a connection, and a connection reaches one worker only.
    ("grpc.use_local_subchannel_pool", 1),
    # Nothing but the address given is spoken to.
    ("grpc.enable_http_proxy", 0),
)
SETUP_SECONDS_MAX = 30

Metadata = tuple[tuple[str, str], ...]


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

    def http_request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A signed request as it goes over the wire; `path` with its query."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers(method, path, body))
        return (
            f"{method} {path} HTTP/1.1\r\nhost: {urlsplit(self.url).netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n"
        ).encode() + body


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    return grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)


@asynccontextmanager
async def temporary_project(url: str, grpc_target: str) -> AsyncIterator[Target]:
    """A project of someone new, deleted on exit.

    Raises StartupError with what Nimbus has against it, or that it is not there.
    """
    async with open_channel(grpc_target) as channel:
        creating = asyncio.create_task(_create(channel, grpc_target))
        try:
            # What is stopped while it is made is there all the same.
            project, secret, _ = await asyncio.shield(creating)
            yield Target(url, grpc_target, project.id, project.api_key_id, secret)
        finally:
            await asyncio.wait([creating])
            if creating.exception() is None:
                project, _, bearer = creating.result()
                await _delete(channel, project.id, bearer)


async def _create(channel: grpc.aio.Channel, grpc_target: str) -> tuple[projects.Project, str, Metadata]:
    """A project with its key's secret, and what its owner shows."""
    try:
        tokens = await AuthServiceStub(channel).Register(
            auth.RegisterRequest(email=f"bench-{secrets.token_hex(8)}@example.com", password=secrets.token_urlsafe(18)),
            timeout=SETUP_SECONDS_MAX,
        )
        bearer = (("authorization", f"Bearer {tokens.access_token}"),)
        created = await ProjectServiceStub(channel).CreateProject(
            projects.CreateProjectRequest(name="nimbus bench"), metadata=bearer, timeout=SETUP_SECONDS_MAX
        )
    except grpc.aio.AioRpcError as error:
        raise StartupError(f"No project to measure with on {grpc_target}. {failure_of(error).message}") from None
    return created.project, created.api_key_secret, bearer


async def _delete(channel: grpc.aio.Channel, project_id: str, bearer: Metadata) -> None:
    try:
        await ProjectServiceStub(channel).DeleteProject(
            projects.DeleteProjectRequest(project_id=project_id), metadata=bearer, timeout=SETUP_SECONDS_MAX
        )
    except grpc.aio.AioRpcError as error:
        raise StartupError(
            f"The project {project_id} could not be deleted again. {failure_of(error).message}"
        ) from None

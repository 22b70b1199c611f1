"""The Nimbus that `nimbus tail` watches, and the credentials for it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import grpc.aio

from nimbus.v1 import stream_service_pb2 as pb
from nimbus.v1.stream_service_pb2_grpc import StreamServiceStub
from nimbus_client import signed_aio_channel
from nimbus_client.channel import OPTIONS
from nimbus_server.accounts.api_keys import ApiKey, SecretBox
from nimbus_server.errors import StartupError
from nimbus_server.importer.store import check_project
from nimbus_server.importer.target import with_database
from nimbus_server.local import own_secrets
from nimbus_server.local.folder import DataFolder
from nimbus_server.settings import Settings, require_sendable
from nimbus_server.tail.store import sealed_key


@dataclass(frozen=True, slots=True)
class Source:
    """Addresses that lead to the same Nimbus, and a project's key or a person's access token."""

    targets: Sequence[str]
    key: ApiKey | None = None
    token: str | None = None
    tls: bool = False

    def channel(self, target: str) -> grpc.aio.Channel:
        """A channel to one of the addresses; with a key it signs by itself."""
        if self.key is not None:
            return signed_aio_channel(target, self.key.id, self.key.secret, secure=self.tls)
        if self.tls:
            return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), OPTIONS)
        return grpc.aio.insecure_channel(target, OPTIONS)


class Streams:
    """Opens each stream at the next address. Make it inside the event loop that uses it, and `close` it."""

    def __init__(self, source: Source) -> None:
        self._channels = [source.channel(target) for target in source.targets]
        self._stubs = cycle([StreamServiceStub(channel) for channel in self._channels])
        self._metadata = (("authorization", f"Bearer {source.token}"),) if source.token else ()

    def SubscribeEvents(self, request: pb.SubscribeEventsRequest) -> Any:  # noqa: N802 - as a stub has it
        """The call of this name, at the next address."""
        return next(self._stubs).SubscribeEvents(request, metadata=self._metadata)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def remote_source(target: str, key_id: str | None, *, tls: bool) -> Source:
    """Nimbus at an address, with credentials from the environment. Raises StartupError where there are none."""
    if "://" in target:
        raise StartupError("--grpc-target is HOST:PORT, without http://, such as localhost:50051.")
    secret, token = os.environ.get("NIMBUS_TAIL_SECRET"), os.environ.get("NIMBUS_TOKEN")
    require_sendable({"--grpc-target": target, "--key-id": key_id, "NIMBUS_TAIL_SECRET": secret, "NIMBUS_TOKEN": token})
    if key_id and secret:
        return Source([target], key=ApiKey(key_id, secret), tls=tls)
    if token and not key_id:
        return Source([target], token=token, tls=tls)
    raise StartupError(
        "--grpc-target takes a person's access token in NIMBUS_TOKEN, or else --key-id with the key's secret in "
        "NIMBUS_TAIL_SECRET."
    )


async def local_source(settings: Settings, project_id: UUID) -> Source:
    """The `nimbus up` on the data folder of the settings, with the project's own key.

    Whoever may read the secrets there owns all that they protect, and needs no others. Raises StartupError.
    """
    folder = DataFolder(settings.data_dir.expanduser().resolve())
    try:
        sockets = sorted(folder.run.glob("worker-*.sock"))
        if not sockets:
            raise StartupError(
                f"No Nimbus runs on the data folder {folder.root}. Start it with `nimbus up`, name another with "
                "--data-dir, or give --grpc-target."
            )
        keys = settings.secret_keys or own_secrets.kept_secret_keys(folder.secrets)
    except PermissionError:
        raise StartupError(f"The data folder {folder.root} is another user's: give --grpc-target.") from None
    settings = with_database(settings.model_copy(update={"secret_keys": keys}))
    await check_project(settings, project_id)
    key_id, sealed = await sealed_key(settings, project_id)
    secret = SecretBox(settings).open(sealed) if keys else None
    if secret is None:
        raise StartupError("Give NIMBUS_SECRET_KEYS as `nimbus up` has it: without it the project's key can't be read.")
    return Source([_address(socket) for socket in sockets], key=ApiKey(key_id, secret))


def _address(socket: Path) -> str:
    # gRPC reads a URI: a percent sign in the path is not one of its own.
    return f"unix:{quote(os.fsencode(socket))}"

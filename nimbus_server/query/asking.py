"""Asks a Nimbus one question."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nimbus.v1 import analysis_service_pb2
from nimbus.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from nimbus_client import NimbusError
from nimbus_client.errors import nimbus_errors
from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings
from nimbus_server.tail.source import Source, local_source, remote_source

SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which Nimbus to ask: the one on the data folder, or the one at `grpc_target`."""

    grpc_target: str | None
    key_id: str | None
    tls: bool

    async def source(self, settings: Settings, project_id: UUID) -> Source:
        """Its addresses and credentials. Raises StartupError."""
        if self.grpc_target is not None:
            return remote_source(self.grpc_target, self.key_id, tls=self.tls)
        if self.key_id or self.tls:
            raise StartupError("--key-id and --tls go with --grpc-target; the Nimbus on --data-dir needs neither.")
        return await local_source(settings, project_id)


async def ask(settings: Settings, where: Where, project_id: UUID, rpc: str, request: Message) -> Any:
    """The answer to a request of this RPC. Raises StartupError with what the server says of it."""
    source = await where.source(settings, project_id)
    metadata = (("authorization", f"Bearer {source.token}"),) if source.token else ()
    channel = source.channel(source.targets[0])
    try:
        with nimbus_errors():
            return await getattr(AnalysisServiceStub(channel), rpc)(request, metadata=metadata, timeout=SECONDS_MAX)
    except NimbusError as error:
        raise StartupError(_said(error)) from error
    finally:
        await channel.close()


def response_class(rpc: str) -> Any:
    """The message that answers an RPC."""
    return GetMessageClass(
        analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"].methods_by_name[rpc].output_type
    )


def _said(error: NimbusError) -> str:
    return "\n".join([wrong.message for wrong in error.violations] or [error.message])

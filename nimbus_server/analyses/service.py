"""AnalysisService in the workers: may the caller ask this? Then the analyst answers."""

from functools import partial
from typing import Any

from nimbus.v1 import analysis_service_pb2
from nimbus_server.accounts.caller import caller
from nimbus_server.errors import NimbusError, Reason, analyst_unavailable, field_error
from nimbus_server.projects.access import ProjectAccess
from nimbus_server.rpc.call import current_call
from nimbus_server.rpc.fields import uuid_field
from nimbus_server.rpc.forward import Forwarder
from nimbus_server.rpc.json_body import JSON_BODY

SERVICE = analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]
SECONDS_DEFAULT, SECONDS_MAX = 30.0, 120.0
# The field of a request that holds another question.
QUESTION = "question"


class AnalysisService:
    """Implements nimbus.v1.AnalysisService: the same for all of its RPCs. Errors are those that the proto names.

    `analyst` is None where this worker knows of none.
    """

    def __init__(self, access: ProjectAccess, analyst: Forwarder | None) -> None:
        self._access = access
        self._analyst = analyst
        for method in SERVICE.methods:
            setattr(self, method.name, partial(self._forward, f"/{SERVICE.full_name}/{method.name}"))

    async def _forward(self, rpc: str, request: Any) -> bytes:
        await self._access.require(caller(), uuid_field("project_id", request.project_id))
        _check_inner_question(request)
        if self._analyst is None:
            raise NimbusError(
                Reason.ANALYST_UNAVAILABLE,
                "This server has no process that answers questions: start one with `nimbus analyst`, and name its "
                "socket to the workers in NIMBUS_ANALYST_SOCKET.",
                retry_after_seconds=60.0,
            )
        call = current_call.get()
        asked = SECONDS_DEFAULT if call.client_seconds is None else call.client_seconds
        left = SECONDS_MAX if call.seconds_left is None else call.seconds_left
        seconds = min(asked, left, SECONDS_MAX)
        response = await self._analyst.call(rpc, request.SerializeToString(), seconds, call.request_id)
        if response is None:
            raise analyst_unavailable()
        return response


def _check_inner_question(request: Any) -> None:
    """A question within a request is about the same project, and the caller may see that one."""
    kind = request.WhichOneof(QUESTION) if QUESTION in request.DESCRIPTOR.oneofs_by_name else None
    if kind is None:
        return
    inner = getattr(request, kind)
    if inner.project_id not in {"", request.project_id}:
        name = f"{kind}.project_id"
        raise field_error(Reason.FIELD_INVALID, name, f"{name} must be left out, or be project_id.")
    if inner.HasField(JSON_BODY):
        name = f"{kind}.{JSON_BODY}"
        raise field_error(Reason.FIELD_INVALID, name, f"{name} is for the REST gateway alone.")

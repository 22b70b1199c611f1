"""Whether a caller may touch a project."""

from uuid import UUID

from nimbus_server.accounts.caller import Caller, Machine
from nimbus_server.errors import NimbusError, Reason, project_not_found
from nimbus_server.projects.store import ProjectStore


class ProjectAccess:
    """The one answer to "may this caller?", for every service that reads or writes a project's log."""

    def __init__(self, store: ProjectStore) -> None:
        self._store = store

    async def require(self, caller: Caller, project_id: UUID) -> None:
        """Raise NimbusError with PROJECT_MISMATCH or PROJECT_NOT_FOUND unless the project is the caller's."""
        if isinstance(caller, Machine):
            if caller.project_id != project_id:
                raise NimbusError(
                    Reason.PROJECT_MISMATCH, "This API key belongs to another project than the request names."
                )
        elif caller.only_project not in {None, project_id} or not await self._store.is_member(
            caller.user_id, project_id
        ):
            raise project_not_found()

    async def timezone(self, project_id: UUID) -> str:
        """The project's time zone, as ProjectStore has it. It says nothing about who may know."""
        return await self._store.timezone(project_id)

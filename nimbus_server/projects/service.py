"""ProjectService: projects and their keys over gRPC."""

from uuid import uuid4

from nimbus.v1 import project_service_pb2 as pb
from nimbus_server.accounts.api_keys import SecretBox, new_api_key
from nimbus_server.accounts.caller import person
from nimbus_server.projects.store import Project, ProjectStore
from nimbus_server.rpc.fields import int_field, text_field, timestamp, uuid_field, zone_field
from nimbus_server.rpc.paging import page_token, read_page_token

NAME_LENGTH_MAX = 200
TIMEZONE_DEFAULT = "UTC"
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
GRACE_SECONDS_MAX = 604_800


class ProjectService:
    """Implements nimbus.v1.ProjectService. Errors are those that the proto names for each RPC."""

    def __init__(self, store: ProjectStore, secrets: SecretBox) -> None:
        self._store = store
        self._secrets = secrets

    async def CreateProject(self, request: pb.CreateProjectRequest) -> pb.CreateProjectResponse:
        name = text_field("name", request.name, NAME_LENGTH_MAX)
        zone = zone_field("timezone", request.timezone or TIMEZONE_DEFAULT)
        key = new_api_key()
        project = await self._store.create(
            uuid4(), name, person().user_id, key.id, self._secrets.seal(key.secret), zone.key
        )
        return pb.CreateProjectResponse(project=_message(project), api_key_secret=key.secret)

    async def ListProjects(self, request: pb.ListProjectsRequest) -> pb.ListProjectsResponse:
        size = int_field("page_size", request.page_size or PAGE_SIZE_DEFAULT, 1, PAGE_SIZE_MAX)
        after = read_page_token(request.page_token) if request.page_token else None
        projects = await self._store.page(person().user_id, size + 1, after)
        items, more = projects[:size], len(projects) > size
        return pb.ListProjectsResponse(
            items=map(_message, items),
            count=len(items),
            next_page_token=page_token((items[-1].created_at, items[-1].id)) if more else "",
        )

    async def GetProject(self, request: pb.GetProjectRequest) -> pb.Project:
        project = await self._store.get(person().user_id, uuid_field("project_id", request.project_id))
        return _message(project)

    async def UpdateProject(self, request: pb.UpdateProjectRequest) -> pb.Project:
        project_id = uuid_field("project_id", request.project_id)
        timezone = zone_field("timezone", request.timezone).key if request.timezone else None
        named = request.name or not request.timezone
        name = text_field("name", request.name, NAME_LENGTH_MAX) if named else None
        project = await self._store.update(person().user_id, project_id, name, timezone)
        return _message(project)

    async def DeleteProject(self, request: pb.DeleteProjectRequest) -> pb.DeleteProjectResponse:
        await self._store.delete(person().user_id, uuid_field("project_id", request.project_id))
        return pb.DeleteProjectResponse()

    async def RotateKeys(self, request: pb.RotateKeysRequest) -> pb.RotateKeysResponse:
        project_id = uuid_field("project_id", request.project_id)
        grace_seconds = int_field("grace_seconds", request.grace_seconds, 0, GRACE_SECONDS_MAX)
        key = new_api_key()
        project = await self._store.rotate_key(
            person().user_id, project_id, key.id, self._secrets.seal(key.secret), grace_seconds
        )
        return pb.RotateKeysResponse(project=_message(project), api_key_id=key.id, api_key_secret=key.secret)


def _message(project: Project) -> pb.Project:
    return pb.Project(
        id=str(project.id),
        name=project.name,
        timezone=project.timezone,
        api_key_id=project.api_key_id,
        created_at=timestamp(project.created_at),
        updated_at=timestamp(project.updated_at),
    )

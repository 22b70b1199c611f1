"""A whole worker in this process, over a database of its own: what it serves, and what it has in hand."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography.fernet import Fernet
from storage import settings_for

from nimbus.v1 import auth_service_pb2, event_service_pb2, project_service_pb2
from nimbus.v1.auth_service_pb2_grpc import AuthServiceStub
from nimbus.v1.project_service_pb2_grpc import ProjectServiceStub
from nimbus_server.app import Addresses, Worker
from nimbus_server.rpc import admit
from nimbus_server.rpc.door import Door

Metadata = tuple[tuple[str, str], ...]
SECRETS = {"jwt_secret": "a" * 64, "secret_keys": Fernet.generate_key().decode(), "bcrypt_cost": 4}


@dataclass
class OneWorker:
    """A worker, a channel to it, and a person with a project. `problems` is what the event loop complained of."""

    worker: Worker
    door: Door
    address: str
    channel: grpc.aio.Channel
    sockets: Path
    project_id: str = ""
    person: Metadata = ()
    problems: list[dict[str, Any]] = field(default_factory=list)
    _tasks: int = 0

    async def register(self) -> None:
        """Have a person with a project, and take what there is now for what there is at rest."""
        account = auth_service_pb2.RegisterRequest(email="ada@example.com", password="correct horse battery")
        answer = await AuthServiceStub(self.channel).Register(account)
        self.person = (("authorization", f"Bearer {answer.access_token}"),)
        wanted = project_service_pb2.CreateProjectRequest(name="a project")
        created = await ProjectServiceStub(self.channel).CreateProject(wanted, metadata=self.person)
        self.project_id = created.project.id
        self._tasks = len(asyncio.all_tasks())

    async def ingest(self, count: int, props: bytes) -> None:
        """Store so many events with the same props."""
        events = [event_service_pb2.Event(name="n", props_json=props) for _ in range(count)]
        request = event_service_pb2.IngestEventsRequest(project_id=self.project_id, events=events)
        rpc = self.channel.unary_unary("/nimbus.v1.EventService/IngestEvents", type(request).SerializeToString, None)
        await rpc(request, metadata=self.person)

    @property
    def streams(self) -> int:
        """Streams that are counted as open."""
        return self.worker._hub._count

    @property
    def in_hand(self) -> dict[str, object]:
        """What is there of streams, requests and tasks beyond what there is at rest."""
        parts = {
            "streams": self.streams,
            "channels": len(self.worker._hub._channels),
            "rights watched": len(self.worker._rights._watched),
            "readers of ingest streams": len(self.worker._ingest_service._readers),
            "bytes of requests": self.door._bytes,
            "batches that wait for their commit": self.worker._ingest._queue._use.appends,
            "tasks": max(0, len(asyncio.all_tasks()) - self._tasks),
        }
        return {name: count for name, count in parts.items() if count}


@asynccontextmanager
async def one_worker(dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OneWorker]:
    """A worker at work without the garbage collector: what it lets go of is let go of by itself."""
    door = Door()
    monkeypatch.setattr(admit, "Door", lambda: door)
    settings = settings_for(dsn).model_copy(update={"drain_seconds": 0.0})
    settings = type(settings).model_validate(settings.model_dump() | SECRETS)
    loop, thresholds = asyncio.get_running_loop(), gc.get_threshold()
    handler_before = loop.get_exception_handler()
    worker = Worker(settings, Addresses(folder / "grpc.sock", folder / "websocket.sock", None))
    await worker.start()
    tasks = [asyncio.create_task(worker.write()), asyncio.create_task(worker.stream())]
    gc.disable()
    try:
        address = f"unix:{folder}/grpc.sock"
        async with grpc.aio.insecure_channel(address) as channel:
            one = OneWorker(worker, door, address, channel, folder / "websocket.sock")
            loop.set_exception_handler(lambda _, context: one.problems.append(context))
            await one.register()
            yield one
    finally:
        gc.enable()
        await worker.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        loop.set_exception_handler(handler_before)

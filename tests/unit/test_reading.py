"""Large requests are read one at a time, and nothing is kept of what they were parsed to."""

import asyncio
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from nimbus_server.accounts.caller import Caller, Machine, Person, current_caller
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.ingest.decode import Batch, Origin
from nimbus_server.ingest.reading import COUNTED_BYTES, SLICE_EVENTS, SMALL_BYTES, Reader, SentBatch
from nimbus_server.projects.access import ProjectAccess

NOW = datetime(2025, 11, 1, tzinfo=UTC)
PROJECT = UUID(int=1)
MACHINE = Machine(PROJECT, "nbk_1", NOW, "00" * 32)
PERSON = Person(UUID(int=2), UUID(int=3), "token")
LARGE, SMALL = bytes(SMALL_BYTES + 1), b""


class Events(list[int]):
    """A list that can be referred to weakly."""


class Work:
    """Says in which order requests were parsed and their slices decoded."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def sent(self, name: str, events: int) -> SentBatch:
        self.steps.append(f"parse {name}")

        def decode(part: Sequence[Any], _origin: Origin, first: int) -> Batch:
            self.steps.append(f"decode {name} {first}")
            return Batch([], [])

        return SentBatch(PROJECT, Events(range(events)), None, False, decode)

    async def read(self, reader: Reader, name: str, raw: bytes, events: int, who: Caller = MACHINE) -> None:
        current_caller.set(who)
        await reader.read(raw, lambda: self.sent(name, events))


class Slow(ProjectAccess):
    """A database that takes its time."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()

    async def require(self, caller: Caller, project_id: UUID) -> None:  # noqa: ARG002 - as it is there
        if isinstance(caller, Person):
            await self.answers.wait()


def reader(access: ProjectAccess | None = None) -> Reader:
    return Reader(access or Slow(), lambda: NOW, None)


async def test_large_requests_take_turns_and_small_ones_come_between_their_slices() -> None:
    work, one = Work(), reader()
    sizes = (("a", LARGE, SLICE_EVENTS * 2), ("b", LARGE, 1), ("c", SMALL, SLICE_EVENTS * 2))
    await asyncio.gather(*(work.read(one, *size) for size in sizes))
    assert work.steps == [
        *("parse a", "decode a 0"),
        *("parse c", "decode c 0"),
        f"decode a {SLICE_EVENTS}",
        *("parse b", "decode b 0"),
    ]


async def test_a_small_body_that_is_packed_takes_its_turn() -> None:
    work, one = Work(), reader()
    current_caller.set(MACHINE)
    large = asyncio.create_task(one.read(LARGE, lambda: work.sent("a", SLICE_EVENTS * 2)))
    packed = asyncio.create_task(one.read(SMALL, lambda: work.sent("b", 1), packed=True))
    await asyncio.gather(large, packed)
    assert work.steps.index("parse b") > work.steps.index(f"decode a {SLICE_EVENTS}")


async def test_machines_do_not_wait_until_the_rights_of_people_are_looked_up() -> None:
    work, access = Work(), Slow()
    one = reader(access)
    person = asyncio.create_task(work.read(one, "person", LARGE, 1, PERSON))
    await asyncio.sleep(0)
    await asyncio.create_task(work.read(one, "machine", LARGE, 1))
    assert work.steps == ["parse person", "parse machine", "decode machine 0"]
    access.answers.set()
    await person


async def test_an_error_keeps_nothing_of_what_was_parsed() -> None:
    parsed: list[weakref.ref[Events]] = []

    def sent() -> SentBatch:
        batch = Work().sent("a", 1001)
        parsed.append(weakref.ref(batch.events))  # type: ignore[arg-type]
        return batch

    current_caller.set(MACHINE)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.BATCH_TOO_LARGE):
        await reader().read(LARGE, sent)
    assert parsed[0]() is None


async def test_too_many_messages_are_not_parsed() -> None:
    work = Work()
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.BATCH_TOO_LARGE):
        await work.read(reader(), "a", b"\x12\x00" * COUNTED_BYTES, 1)
    await work.read(reader(), "b", (b"\x12\xff\x7f" + bytes(0x3FFF)) * 1000, 1)
    assert work.steps == ["parse b", "decode b 0"]

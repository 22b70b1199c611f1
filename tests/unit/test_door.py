"""As many bytes are let in as there is room for; who is refused or waits takes none of it."""

import asyncio

import pytest

from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.door import Door


async def test_who_finds_no_room_is_told_so_and_leaves_room_for_smaller_ones() -> None:
    door = Door(bytes_max=10)
    door.enter(8)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.OVERLOADED and e.retry_after_seconds):
        door.enter(3)
    door.enter(2)
    door.leave(8)
    door.enter(8)


async def test_who_waits_comes_in_when_there_is_room_and_who_gives_up_takes_none() -> None:
    door = Door(bytes_max=10)
    door.enter(8)
    patient, leaving = (asyncio.create_task(door.enter_in_time(9)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    door.enter(1)
    door.leave(1)
    await asyncio.sleep(0)
    assert not patient.done()
    door.leave(8)
    await patient
    with pytest.raises(NimbusError):
        door.enter(2)
    assert leaving.cancelled()

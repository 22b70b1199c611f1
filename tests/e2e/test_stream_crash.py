"""Whoever follows a log sees all of it once and in order, whatever is killed. `make soak` does it for longer."""

import random
from pathlib import Path

import pytest
from conftest import Stack
from crash_harness import Crashes
from crash_killer import Victim
from crash_subscribers import followed, subscribers
from own_valkey import Valkey


@pytest.mark.timeout(300)
async def test_no_kill_hides_or_repeats_an_event(scratch: Path) -> None:
    with Valkey(scratch) as valkey:
        stack = Stack(scratch / "data", {"NIMBUS_WORKERS": "2", "NIMBUS_REDIS_URL": valkey.url}).start()
        try:
            crashes = Crashes(stack, scratch / "ledger", projects=1, batches=30, valkey=valkey)
            readers = subscribers(stack, crashes.accounts)
            found = await followed(stack, readers, crashes.run(random.sample([*Victim], len(Victim))))
        finally:
            stack.stop()
    assert not any(found.values()), (found, [reader.wrong for reader in readers])
    # Several came back, or nothing was put to the test; one may have been lucky all the while.
    assert sum(reader.streams for reader in readers) > len(readers) + 1

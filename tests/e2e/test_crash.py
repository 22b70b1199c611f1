"""What is acknowledged is stored exactly once, whatever is killed while it is sent. `make soak` does it for longer."""

import random
from pathlib import Path

import pytest
from conftest import Stack
from crash_harness import Crashes
from crash_killer import Victim


@pytest.mark.timeout(300)
async def test_no_kill_loses_or_doubles_an_event(scratch: Path) -> None:
    stack = Stack(scratch / "data", {"NIMBUS_WORKERS": "2"}).start()
    victims = random.sample([*Victim], len(Victim))
    try:
        report = await Crashes(stack, scratch / "ledger", projects=2, batches=50).run(victims)
    finally:
        stack.stop()
    assert report.is_clean, "\n".join([report.table(), *report.refused[:10]])
    # Some were stored without their senders hearing of it, or nothing was put to the test.
    assert report.failed_attempts > 0
    assert report.stored == report.acked == report.sent

"""How long a process that died waits for its next start."""

import pytest

from nimbus_server.local.processes import Backoff


def test_one_that_dies_again_and_again_waits_longer_each_time_up_to_five_seconds() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_after(served_seconds=1.0) for _ in range(9)]
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


def test_one_that_has_served_for_a_while_is_started_again_at_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_after(served_seconds=0.0)
    assert [backoff.pause_after(served_seconds=5.0) for _ in range(3)] == [0, 0, 0]
    assert backoff.pause_after(served_seconds=0.0) == pytest.approx(0.1)

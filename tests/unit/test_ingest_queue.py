"""What waits for its commit: bounded, fair, in order, and its counts are those of what is in it."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.ingest.commit import Append
from nimbus_server.ingest.event import NewEvent
from nimbus_server.ingest.queue import BYTES_MAX, COMMIT_BYTES, COMMIT_EVENTS, EVENTS_MAX, Queue, Waiting

A, B = UUID(int=1), UUID(int=2)
EVENT = NewEvent(0, bytes(16), 0, False, "n", b"")


def waiting(project: UUID, events: int = 1, size: int = 1) -> Waiting:
    return Waiting(Append(project, None, [EVENT] * events, 0), size)


def fill(queue: Queue, project: UUID, events: int, size: int) -> list[Waiting]:
    """As many as there is room for."""
    put = []
    while queue.has_room(project, events, size):
        put.append(waiting(project, events, size))
        queue.put(put[-1])
    return put


@pytest.mark.parametrize(("events", "size"), [(1000, 1), (1, 1024 * 1024)], ids=["events", "bytes"])
async def test_a_project_may_take_half_and_two_projects_all(events: int, size: int) -> None:
    queue = Queue()
    whole = min(EVENTS_MAX // events, BYTES_MAX // size)
    of_a = fill(queue, A, events, size)
    assert len(of_a) == whole // 2
    assert queue.has_room(B, events, size)
    assert len(fill(queue, B, events, size)) == whole // 2
    assert not queue.has_room(UUID(int=3), events, size)
    queue.remove(of_a[0])
    assert queue.has_room(UUID(int=3), events, size)


async def test_what_is_being_committed_still_takes_its_room() -> None:
    queue = Queue()
    of_a = fill(queue, A, 1000, 1)
    taken = queue.take([A])
    assert taken == of_a[: len(taken)]
    assert not queue.has_room(A, 1000, 1)
    for one in taken:
        assert queue.remove(one)
    assert queue.has_room(A, 1000, 1)


@pytest.mark.parametrize("projects", [1, 2, 7])
async def test_a_commit_takes_a_share_of_each_project_and_at_least_one_append(projects: int) -> None:
    queue, ids = Queue(), [UUID(int=n) for n in range(projects)]
    for project in ids:
        for _ in range(EVENTS_MAX // 1000 // projects):
            queue.put(waiting(project, 1000))
    taken = queue.take(ids)
    assert sum(len(one.append.events) for one in taken) <= COMMIT_EVENTS
    counts = {sum(one.append.project_id == project for one in taken) for project in ids}
    assert counts == {COMMIT_EVENTS // projects // 1000}
    large = Queue()
    for project in ids:
        large.put(waiting(project, 1, COMMIT_BYTES))
    assert len(large.take(ids)) == projects


async def test_who_did_not_get_all_of_theirs_comes_after_the_others() -> None:
    queue = Queue()
    for _ in range(30):
        queue.put(waiting(A, 1000))
    queue.put(waiting(B))
    queue.take([A])
    assert list(queue.project_ids) == [B, A]


async def test_what_is_put_back_comes_first_again_but_for_what_was_removed() -> None:
    queue = Queue()
    ones = [waiting(A) for _ in range(4)]
    for one in ones[:3]:
        queue.put(one)
    taken = queue.take([A])
    queue.put(ones[3])
    queue.remove(ones[1])
    queue.put_back(taken)
    assert queue.take([A]) == [ones[0], ones[2], ones[3]]


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "put_back", "finish", "remove"]), st.integers(0, 9))))
async def test_counts_are_those_of_what_is_in_it_and_order_is_kept(steps: list[tuple[str, int]]) -> None:
    """Whoever takes, finishes or puts back what it took; a caller may give up at any time."""
    queue, alive, taken = Queue(), [], []
    for step, n in steps:
        if step == "put":
            alive.append(waiting((A, B)[n % 2], n // 2, n))
            queue.put(alive[-1])
        elif step == "take" and not taken:
            taken = queue.take([(A,), (B,), (A, B)][n % 3])
        elif step == "put_back":
            queue.put_back(taken)
            taken = []
        elif step == "finish":
            for one in taken:
                assert queue.remove(one) == (one in alive)
            alive, taken = [one for one in alive if one not in taken], []
        elif step == "remove" and alive:
            gone = alive.pop(n % len(alive))
            assert queue.remove(gone)
            assert not queue.remove(gone)
        assert queue._use.appends == len(alive)
        assert queue._use.events == sum(len(one.append.events) for one in alive)
        assert queue._use.size == sum(one.size for one in alive)
        assert set(queue._use_of) == {one.append.project_id for one in alive}
        idle = [one for one in alive if one not in taken]
        assert set(queue.project_ids) == {one.append.project_id for one in idle}
    queue.put_back(taken)
    for project in (A, B):
        assert queue.take([project]) == [one for one in alive if one.append.project_id == project]

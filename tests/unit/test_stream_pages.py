"""Pages of a log and the ring of them: nothing is left out at their seams, and what they take is known and bounded."""

import asyncio
import itertools
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_server.stream import page as pages
from nimbus_server.stream.event import StreamedEvent
from nimbus_server.stream.feed import Feed
from nimbus_server.stream.filter import EventFilter
from nimbus_server.stream.page import ENCODED_BYTES_MAX, MESSAGE_BYTES_MAX, Form, Page, Shape, in_parts

AT = datetime(2025, 11, 1, tzinfo=UTC)
PROJECT = UUID(int=7)
FORM = Form(lambda _, events, position: b"%d:" % position + b" ".join(b"%d" % e.seq for e in events), b"%d".__mod__)
LARGE = Form(lambda *_: bytes(1_000_000), b"%d".__mod__)


def event(seq: int, size: int = 2) -> StreamedEvent:
    return StreamedEvent(UUID(int=seq), seq, AT, AT, "n", None, None, '{"a":"' + "x" * size + '"}')


def ring(lengths: list[int], start: int = 0) -> tuple[Feed, list[Page]]:
    """A feed with pages of such lengths, in which every third position has no event any more."""
    feed = Feed(None, PROJECT, start, None)  # type: ignore[arg-type]  # nothing is read
    feed.shrink(1 << 30)
    added = []
    for length in lengths:
        positions = range(feed.end + 1, feed.end + length + 1)
        added.append(Page(PROJECT, feed.end, feed.end + length, [event(n) for n in positions if n % 3], feed._grow))
        feed._add(added[-1])
    return feed, added


@given(st.lists(st.integers(0, 300_000), max_size=30), st.integers(1, 5))
def test_parts_are_the_events_in_order_and_as_large_as_messages_may_be(sizes: list[int], count_max: int) -> None:
    events = [event(seq, size) for seq, size in enumerate(sizes, start=1)]
    parts = in_parts(events, count_max)
    assert [e for part in parts for e in part] == events
    for part in parts:
        assert 1 <= len(part) <= count_max
        assert len(part) == 1 or sum(len(e.props_json) for e in part) <= MESSAGE_BYTES_MAX
    for part, following in itertools.pairwise(parts):
        taken = sum(len(e.props_json) for e in part) + len(following[0].props_json)
        assert len(part) == count_max or taken > MESSAGE_BYTES_MAX, "no message is smaller than it need be"


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 1000))
def test_a_reader_of_the_ring_meets_every_event_from_wherever_it_starts(lengths: list[int], start: int) -> None:
    feed, _ = ring(lengths, start)
    for position in range(start, feed.end + 1):
        seen, reached = [], position
        while found := feed.page_at(reached):
            assert found.after == reached
            assert found.last > reached
            seen += [e.seq for e in found.events]
            reached = found.last
        assert seen == [n for n in range(position + 1, feed.end + 1) if n % 3]
    assert feed.page_at(feed.end + 5) is None


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 20_000))
def test_the_ring_forgets_its_oldest_pages_and_never_its_newest(lengths: list[int], size_max: int) -> None:
    feed, added = ring(lengths)
    feed.shrink(size_max)
    kept = [one for one in added if one.after >= feed.start]
    assert list(feed._pages) == kept
    assert kept[-1] is added[-1]
    assert (kept[0].after, kept[-1].last) == (feed.start, feed.end)
    assert len(kept) == 1 or sum(one.size for one in kept) <= size_max
    if len(kept) < len(added):
        assert sum(one.size for one in added[len(added) - len(kept) - 1 :]) > size_max
    assert feed._size == sum(one.size for one in kept)
    # In the end the newest goes as well, where it is too large alone.
    feed.tidy()
    assert feed._size <= size_max
    assert list(feed._pages) == kept[len(kept) - len(feed._pages) :]
    assert (feed.start, feed._shared) == (feed._pages[0].after if feed._pages else feed.end, {})


async def test_what_is_encoded_of_a_page_counts_and_goes_beyond_no_bound() -> None:
    feed, (old, new) = ring([4, 4])
    feed.shrink(new.size + old.size + 2_500_000)
    for n in range(1, 8):
        before = new.size
        await new.messages(Shape(LARGE, EventFilter(), 100 + n))
        assert (new.size > before) == (n * 1_000_600 < ENCODED_BYTES_MAX)
        assert feed.start == (0 if n < 3 else old.last)
    assert len(new._encoded) == 4
    # What is forgotten is nobody's load any more.
    size = feed._size
    await old.messages(Shape(LARGE, EventFilter()))
    assert feed._size == size == new.size


async def test_a_page_is_encoded_once_for_all_who_want_it_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    counted = Form(lambda _, __, position: calls.append(position) or b"x", b"%d".__mod__)
    for at_once in (0, 50):
        monkeypatch.setattr(pages, "EVENTS_AT_ONCE", at_once)
        calls.clear()
        one = Page(PROJECT, 0, 9, [event(n) for n in range(1, 9)])
        wanted = Shape(counted, EventFilter(names=frozenset({"n"})))
        impatient = asyncio.create_task(one.messages(wanted))
        others = [asyncio.create_task(one.messages(Shape(counted, EventFilter(frozenset({"n"}))))) for _ in range(9)]
        await asyncio.sleep(0)
        impatient.cancel()
        assert [[m.position for m in found] for found in await asyncio.gather(*others)] == [[9]] * 9
        assert calls == [9]


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 4))
async def test_positions_told_with_a_page_reach_its_end(matching: list[bool], count_max: int) -> None:
    events = [event(seq)._replace(name="y" if yes else "n") for seq, yes in enumerate(matching, start=1)]
    found = await Page(PROJECT, 0, len(events) + 3, events).messages(
        Shape(FORM, EventFilter(frozenset({"y"})), count_max)
    )
    wanted = [e.seq for e in events if e.name == "y"]
    assert [int(n) for m in found for n in m.data.partition(b":")[2].split()] == wanted
    assert [m.position for m in found] == [*wanted[count_max - 1 : -1 : count_max], *([len(events) + 3] * bool(wanted))]


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12))
def test_who_waits_passes_over_what_does_not_match_and_nothing_else(pages: list[tuple[int, bool]]) -> None:
    which = EventFilter(frozenset({"n"}))
    feed, _ = ring([])
    waits_at, wanted = 0, set[int]()
    for length, matches in pages:
        page = Page(PROJECT, feed.end, feed.end + length, [])
        feed._add(page)
        if matches:
            waits_at = page.last
            wanted.update(range(page.after + 1, page.last + 1))
        else:
            feed.pass_over(which, page)
    assert feed.waited_at(which, waits_at) == feed.end
    for position in range(feed.end + 2):
        reached = feed.waited_at(which, position)
        assert reached >= position
        assert wanted.isdisjoint(range(position + 1, reached + 1))
    assert feed.waited_at(EventFilter(), 0) == 0
    feed.go_back(1)
    assert feed.waited_at(which, 0) == 0


def test_what_the_log_has_lost_is_not_passed_over() -> None:
    feed, (page,) = ring([3])
    feed.go_back(1)
    feed.pass_over(EventFilter(), page)
    assert feed.waited_at(EventFilter(), 1) == 1
    page._grow(100)
    assert feed._size == 0


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    feed, (page,) = ring([3])
    feed.pass_over(EventFilter(), page)
    feed.forget(EventFilter())
    assert feed.waited_at(EventFilter(), 0) == 0

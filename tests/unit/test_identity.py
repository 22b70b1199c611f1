"""Identities are what keeps an event from being stored twice, and two events from being taken for one."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from nimbus_server.ingest import identity

Triple = tuple[str, str | None, str]

# Few characters, those of the format among them, so that two triples are often alike when put together.
TEXTS = st.text("a1,:-\0", max_size=4)
TRIPLES = st.tuples(TEXTS, st.none() | TEXTS, TEXTS)


@given(TRIPLES, TRIPLES)
def test_different_keyed_events_have_different_identities(one: Triple, other: Triple) -> None:
    assert (identity.keyed(*one) == identity.keyed(*other)) == (one == other)


@given(st.text(min_size=3, max_size=12), st.data())
def test_moving_text_from_one_field_to_the_next_is_another_identity(text: str, data: st.DataObject) -> None:
    splits = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    (a, b), (c, d) = data.draw(splits), data.draw(splits)
    assume((a, b) != (c, d))
    assert identity.keyed(text[:a], text[a:b], text[b:]) != identity.keyed(text[:c], text[c:d], text[d:])


@given(TEXTS, TEXTS)
def test_no_user_is_another_identity_than_any_user(name: str, key: str) -> None:
    assert len({identity.keyed(name, user, key) for user in (None, "", "-1", "None", name, key)}) == len(
        {None, "", "-1", "None", name, key}
    )


@given(TEXTS, TEXTS, st.integers(0, 999), st.integers(0, 999))
def test_each_place_in_each_signed_request_has_its_identity(one: str, other: str, i: int, j: int) -> None:
    assert (identity.signed(one, i) == identity.signed(other, j)) == ((one, i) == (other, j))


@given(TRIPLES, TEXTS, st.integers(0, 999))
def test_a_keyed_event_is_never_taken_for_a_signed_one(triple: Triple, signature: str, index: int) -> None:
    assert identity.keyed(*triple) != identity.signed(signature, index)


def test_identities_stay_the_same_over_releases() -> None:
    """A server that made others would store the retries of events that the one before it stored."""
    assert identity.keyed("signup", "ada", "k-1") == UUID("6d7b609c-0080-8fdb-942c-67390932de3c")
    assert identity.keyed("signup", None, "k-1") == UUID("46e70761-9e65-851a-a52f-16a4c9d46bd2")
    assert identity.signed("ab" * 32, 7) == UUID("49264eb8-ce20-8c58-af62-6adb1900191a")


@given(TRIPLES, st.integers(0, 999))
def test_digests_are_uuids_of_version_8(triple: Triple, index: int) -> None:
    for made in (identity.keyed(*triple), identity.signed(triple[0], index)):
        assert (made.version, made.variant) == (8, RFC_4122)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_fresh_identities_are_uuids_of_version_7_that_tell_their_millisecond(at: datetime) -> None:
    made = identity.fresh(at)
    assert (made.version, made.variant) == (7, RFC_4122)
    told = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=made.int >> 80)
    assert abs(at - told) <= timedelta(milliseconds=1)


def test_fresh_identities_are_never_the_same() -> None:
    at = datetime(2025, 11, 1, tzinfo=UTC)
    assert len({identity.fresh(at) for _ in range(20_000)}) == 20_000

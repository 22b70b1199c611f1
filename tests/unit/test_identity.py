"""Identities are what keeps an event from being stored twice, and two events from being taken for one."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from nimbus_server.clock import micros, moment
from nimbus_server.ingest import identity
from nimbus_server.ingest.copy_rows import NULL, text

Triple = tuple[str, str | None, str]

# Few characters, those of the format among them, so that two triples are often alike when put together.
TEXTS = st.text("a1,:-\0", max_size=4)
TRIPLES = st.tuples(TEXTS, st.none() | TEXTS, TEXTS)
CLAIMED = st.none() | st.integers(0, 20)
PLACES = st.integers(0, 999)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def keyed(name: str, user_id: str | None, key: str, claimed_ts: int | None = None) -> bytes:
    columns = text(name.encode()) + (NULL if user_id is None else text(user_id.encode())) + text(key.encode())
    return identity.keyed(columns, claimed_ts)


def at_place(prefix: bytes, place: int) -> bytes:
    return prefix + place.to_bytes(16 - identity.PREFIX_BYTES)


@given(TRIPLES, TRIPLES, CLAIMED, CLAIMED)
def test_different_keyed_events_have_different_identities(
    one: Triple, other: Triple, claimed: int | None, otherwise: int | None
) -> None:
    assert (keyed(*one, claimed) == keyed(*other, otherwise)) == ((one, claimed) == (other, otherwise))


@given(st.text(min_size=3, max_size=12), st.data())
def test_moving_text_from_one_field_to_the_next_is_another_identity(text: str, data: st.DataObject) -> None:
    splits = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    (a, b), (c, d) = data.draw(splits), data.draw(splits)
    assume((a, b) != (c, d))
    assert keyed(text[:a], text[a:b], text[b:]) != keyed(text[:c], text[c:d], text[d:])


@given(TEXTS, TEXTS)
def test_no_user_is_another_identity_than_any_user(name: str, key: str) -> None:
    users = {None, "", "-1", "None", name, key}
    assert len({keyed(name, user, key) for user in users}) == len(users)


@given(TEXTS, TEXTS, st.integers(0, 9), st.integers(0, 9), PLACES, PLACES)
def test_each_place_in_each_signed_batch_has_its_identity(
    one: str, other: str, batch: int, another: int, i: int, j: int
) -> None:
    same = at_place(identity.signed(one, batch), i) == at_place(identity.signed(other, another), j)
    assert same == ((one, batch, i) == (other, another, j))


@given(TRIPLES, CLAIMED, TEXTS, PLACES)
def test_a_keyed_event_is_never_taken_for_a_signed_one(
    triple: Triple, claimed: int | None, signature: str, place: int
) -> None:
    assert keyed(*triple, claimed) != at_place(identity.signed(signature), place)


def test_lines_of_files_have_identities_of_their_own() -> None:
    lines = [("a", 1, b"x"), ("a", 2, b"x"), ("a", 1, b"y"), ("b", 1, b"x"), ("a:1", 1, b"x"), ("a", 11, b":x")]
    assert len({identity.of_file_line(*line) for line in lines}) == len(lines)
    assert identity.of_file_line("a", 1, b"x") == identity.of_file_line("a", 1, b"x")


def test_identities_stay_the_same_over_releases() -> None:
    """A server that made others would store the retries of events that the one before it stored."""
    assert UUID(bytes=keyed("signup", "ada", "k-1")) == UUID("392cd202-6eb9-8033-80e8-c869db7590c5")
    assert UUID(bytes=keyed("signup", None, "k-1")) == UUID("8efb50b5-446d-80d1-80a0-33da27a18a30")
    assert UUID(bytes=keyed("signup", None, "k-1", 1_762_000_000_000_000)) == UUID(
        "4ac1db06-1f79-80b9-8081-b388a7ea23c2"
    )
    assert UUID(bytes=at_place(identity.signed("ab" * 32), 7)) == UUID("aed02691-ea63-80a1-8084-90107a660007")
    assert UUID(bytes=at_place(identity.signed("ab" * 32, 3), 7)) == UUID("338bae6c-79af-80d4-80e6-3f55b7ff0007")
    assert UUID(bytes=identity.of_file_line("events.jsonl", 1, b"{}")) == UUID("89e7d22e-2f5a-80bb-8051-fefe0309c46e")


@given(TRIPLES, CLAIMED, PLACES)
def test_digests_are_uuids_of_version_8(triple: Triple, claimed: int | None, place: int) -> None:
    for made in (keyed(*triple, claimed), at_place(identity.signed(triple[0]), place)):
        assert (UUID(bytes=made).version, UUID(bytes=made).variant) == (8, RFC_4122)


@given(TIMES, PLACES)
def test_fresh_identities_are_uuids_of_version_7_that_tell_their_millisecond(at: datetime, place: int) -> None:
    made = UUID(bytes=at_place(identity.fresh(micros(at)), place))
    assert (made.version, made.variant) == (7, RFC_4122)
    assert timedelta(0) <= at - moment((made.int >> 80) * 1000) < timedelta(milliseconds=1)


def test_fresh_identities_are_never_the_same() -> None:
    at = micros(datetime(2025, 11, 1, tzinfo=UTC))
    assert len({identity.fresh(at) for _ in range(20_000)}) == 20_000

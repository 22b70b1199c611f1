"""API keys: a mistyped one is found out without a query, and secrets do not lie about in the clear."""

import string

import pytest
from cryptography.fernet import Fernet
from hypothesis import assume, given
from hypothesis import strategies as st

from nimbus_server.accounts.api_keys import SecretBox, is_well_formed, new_api_key
from nimbus_server.errors import StartupError
from nimbus_server.settings import load

KEY = new_api_key()
SECRET_KEYS = [Fernet.generate_key().decode() for _ in range(3)]


def box(*keys: str) -> SecretBox:
    return SecretBox(load(secret_keys=keys))


def test_ids_and_secrets_carry_their_prefix_and_nothing_to_escape() -> None:
    alphabet = set(string.ascii_letters + string.digits)
    for text, prefix, length in ((KEY.id, "nbk_", 34), (KEY.secret, "nbs_", 53)):
        assert text.startswith(prefix)
        assert len(text) == length
        assert set(text.removeprefix(prefix)) <= alphabet


def test_keys_are_never_the_same() -> None:
    keys = [new_api_key() for _ in range(1000)]
    assert len({key.id for key in keys} | {key.secret for key in keys}) == 2000


def test_a_new_id_is_well_formed() -> None:
    assert all(is_well_formed(new_api_key().id) for _ in range(100))


def test_a_secret_is_no_id() -> None:
    assert not is_well_formed(KEY.secret)


@given(st.integers(0, len(KEY.id) - 1), st.characters())
def test_any_one_changed_character_is_found_out(index: int, character: str) -> None:
    assume(KEY.id[index] != character)
    assert not is_well_formed(KEY.id[:index] + character + KEY.id[index + 1 :])


@given(st.integers(0, len(KEY.id) - 1))
def test_one_character_lost_is_found_out(index: int) -> None:
    assert not is_well_formed(KEY.id[:index] + KEY.id[index + 1 :])


@given(st.text(st.characters(codec=None)) | st.text().map("nbk_".__add__))
def test_no_text_makes_the_check_raise(text: str) -> None:
    assert is_well_formed(text) in {True, False}


@pytest.mark.parametrize("text", ["", "nbk_", "nbk_000000", "\ud800" * 34, "nbk_" + "\ud800" * 30])
def test_short_and_odd_texts_are_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)


def test_a_key_shows_its_id_and_not_its_secret() -> None:
    assert KEY.id in repr(KEY)
    assert KEY.secret not in repr(KEY) + str(KEY)


def test_a_sealed_secret_opens_and_shows_nothing() -> None:
    sealed = box(SECRET_KEYS[0]).seal(KEY.secret)
    assert KEY.secret.encode() not in sealed
    assert box(SECRET_KEYS[0]).open(sealed) == KEY.secret
    assert box(SECRET_KEYS[0]).seal(KEY.secret) != sealed


def test_a_new_secret_key_in_front_still_opens_what_the_old_one_sealed() -> None:
    old, new, other = SECRET_KEYS
    assert box(new, old).open(box(old).seal("s")) == "s"
    assert box(new).open(box(new, old).seal("s")) == "s"
    assert box(other).open(box(old).seal("s")) is None


@pytest.mark.parametrize("sealed", [b"", b"garbage", b"\xff" * 100])
def test_garbage_does_not_open(sealed: bytes) -> None:
    assert box(SECRET_KEYS[0]).open(sealed) is None


@pytest.mark.parametrize("keys", [(), ("too-short",), (SECRET_KEYS[0], "x" * 44), ("\u00e9",)])
def test_bad_secret_keys_name_their_variable_and_not_themselves(keys: tuple[str, ...]) -> None:
    with pytest.raises(StartupError, match="NIMBUS_SECRET_KEYS") as failed:
        box(*keys)
    assert not any(key in str(failed.value) for key in keys)

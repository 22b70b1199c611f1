"""Passwords: what will do as one, and that none gets in but the right one."""

import asyncio
import unicodedata
from collections.abc import Iterator

import bcrypt
import pytest

from nimbus_server.accounts import passwords as module
from nimbus_server.accounts.passwords import LENGTH_MAX, TYPED_MAX, Match, Passwords, check_strength
from nimbus_server.errors import NimbusError, Reason

EMAIL = "ada.lovelace@example.com"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(cost=4)
    yield made
    made.close()


@pytest.mark.parametrize(
    "password", ["12345678", "correct horse", "x" * 1022 + "yz", "\u00e9\u00e8\u00ea\u00eb" * 2, "\0" * 6 + "ab"]
)
def test_a_password_of_8_to_1024_characters_will_do(password: str) -> None:
    check_strength(password, EMAIL)


@pytest.mark.parametrize(
    "password", ["", "1234567", "abc" * 341 + "ab", "aaaaaaaa", "abababab", EMAIL, EMAIL.upper(), "Ada.Lovelace"]
)
def test_a_weak_password_is_refused_without_being_repeated(password: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PASSWORD_WEAK) as weak:
        check_strength(password, EMAIL)
    assert weak.value.violations[0].field == "password"
    assert not password or password not in weak.value.message


async def test_only_the_right_password_matches(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert await passwords.match("correct horse", stored) is Match.CURRENT
    for wrong in ("correct hors", "Correct horse", "correct horse ", "", "correct horse\0"):
        assert await passwords.match(wrong, stored) is Match.NONE


async def test_what_differs_past_72_bytes_or_after_nul_is_another_password(passwords: Passwords) -> None:
    for start in ("x" * 72, "x" * 1000, "\u00e9" * 36, "abc\0"):
        stored = await passwords.hash(start + "right")
        assert await passwords.match(start + "right", stored) is Match.CURRENT
        assert await passwords.match(start + "wrong", stored) is Match.NONE


async def test_a_lone_surrogate_is_a_password_like_any_other(passwords: Passwords) -> None:
    stored = await passwords.hash("lone \ud800 surrogate")
    assert await passwords.match("lone \ud800 surrogate", stored) is Match.CURRENT
    assert await passwords.match("lone ? surrogate", stored) is Match.NONE


NFC, NFD = "p\u00e4ssw\u00f6rd \u00e9\ufb01", "pa\u0308sswo\u0308rd e\u0301\ufb01"
NFKC = "p\u00e4ssw\u00f6rd \u00e9fi"


@pytest.mark.parametrize("registered", [NFC, NFD, NFKC, unicodedata.normalize("NFKD", NFC)])
async def test_a_password_is_the_same_in_every_normal_form(passwords: Passwords, registered: str) -> None:
    stored = await passwords.hash(registered)
    for typed in (NFC, NFD, NFKC, unicodedata.normalize("NFKD", NFC)):
        assert await passwords.match(typed, stored) is Match.CURRENT
    assert await passwords.match("passw\u00f6rd \u00e9fi", stored) is Match.NONE


@pytest.mark.parametrize("registered", [NFC, NFD])
async def test_a_hash_of_what_was_typed_still_lets_in(passwords: Passwords, registered: str) -> None:
    old = bcrypt.hashpw(module._digest(registered), bcrypt.gensalt(4)).decode()
    for typed in (NFC, NFD):
        assert await passwords.match(typed, old) is Match.OUTDATED
    assert await passwords.match(NFC + "x", old) is Match.NONE


async def test_the_forms_of_a_password_are_bounded(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = await passwords.hash("correct horse")
    await passwords.match("warm up", None)
    checks: list[bytes] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, _: checks.append(password))
    odd = "\u1e9b\u0323\u00e9e\u0301\ufb01"  # no two of its four forms are alike
    for typed, count in (("plain", 1), ("\u00e9", 2), (odd, 4), ("\ufdfa" * 5000, 1)):
        for known in (stored, None):
            checks.clear()
            assert await passwords.match(typed, known) is Match.NONE
            assert len(checks) == count, "an unknown user takes as long as a wrong password"


@pytest.mark.parametrize("character", ["\u00e9", "\uac01", "\u1f82"], ids=["Latin", "Hangul", "Greek, four marks"])
async def test_a_password_of_full_length_is_the_same_in_every_normal_form(passwords: Passwords, character: str) -> None:
    password = character * (LENGTH_MAX - 2) + "ab"
    decomposed = unicodedata.normalize("NFD", password)
    for typed in (password, decomposed):
        check_strength(typed, EMAIL)
    assert await passwords.match(decomposed, await passwords.hash(password)) is Match.CURRENT
    assert await passwords.match(password, await passwords.hash(decomposed)) is Match.CURRENT


@pytest.mark.parametrize(
    "marks", ["\u0301\u0327", "\u0f73", "\u0f71\u0f73", "\u0301\uff9e"], ids=["Latin", "Tibetan", "both", "Japanese"]
)
async def test_what_would_take_long_to_normalize_is_taken_as_it_is(passwords: Passwords, marks: str) -> None:
    long = "a" + marks * (TYPED_MAX // len(marks) - 1)
    assert module._forms(long) == [long]
    assert await passwords.match(long, await passwords.hash(long)) is Match.CURRENT


def test_lengths_count_normalized_characters() -> None:
    check_strength("\ufb01" * 3 + "xy", EMAIL)
    for password in ("e\u0301" * 7 + "a", "\ufdfa" * 60 + "ab"):
        with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.PASSWORD_WEAK):
            check_strength(password, EMAIL)


async def test_a_hash_is_bcrypt_at_the_given_cost_with_a_salt_of_its_own(passwords: Passwords) -> None:
    one, other = await passwords.hash("correct horse"), await passwords.hash("correct horse")
    assert one != other
    assert one.startswith("$2b$04$")


async def test_an_unknown_user_takes_the_same_work_and_never_matches(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await passwords.hash("correct horse")
    await passwords.match("warm up", None)
    costs: list[bytes] = []
    checkpw = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[:7])
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    assert await passwords.match("correct horse", None) is Match.NONE
    assert await passwords.match("nobody has this password", None) is Match.NONE
    assert await passwords.match("correct horse", stored) is Match.CURRENT
    assert costs == [b"$2b$04$"] * 3


async def test_more_callers_than_can_be_answered_in_time_are_told_so_at_once(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 5)
    results = await asyncio.gather(*(passwords.hash("correct horse") for _ in range(8)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, NimbusError)]
    assert [r.reason for r in refused] == [Reason.OVERLOADED] * 3
    assert await passwords.hash("room again")

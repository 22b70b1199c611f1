"""Passwords: what will do as one, and that none gets in but the right one."""

import asyncio
from collections.abc import Iterator

import bcrypt
import pytest

from nimbus_server.accounts import passwords as module
from nimbus_server.accounts.passwords import Passwords, check_strength
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
    assert await passwords.matches("correct horse", stored)
    for wrong in ("correct hors", "Correct horse", "correct horse ", "", "correct horse\0"):
        assert not await passwords.matches(wrong, stored)


async def test_what_differs_past_72_bytes_or_after_nul_is_another_password(passwords: Passwords) -> None:
    for start in ("x" * 72, "x" * 1000, "\u00e9" * 36, "abc\0"):
        stored = await passwords.hash(start + "right")
        assert await passwords.matches(start + "right", stored)
        assert not await passwords.matches(start + "wrong", stored)


async def test_a_lone_surrogate_is_a_password_like_any_other(passwords: Passwords) -> None:
    stored = await passwords.hash("lone \ud800 surrogate")
    assert await passwords.matches("lone \ud800 surrogate", stored)
    assert not await passwords.matches("lone ? surrogate", stored)


async def test_a_hash_is_bcrypt_at_the_given_cost_with_a_salt_of_its_own(passwords: Passwords) -> None:
    one, other = await passwords.hash("correct horse"), await passwords.hash("correct horse")
    assert one != other
    assert one.startswith("$2b$04$")


async def test_an_unknown_user_takes_the_same_work_and_never_matches(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await passwords.hash("correct horse")
    await passwords.matches("warm up", None)
    costs: list[bytes] = []
    checkpw = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[:7])
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    assert not await passwords.matches("correct horse", None)
    assert not await passwords.matches("nobody has this password", None)
    assert await passwords.matches("correct horse", stored)
    assert costs == [b"$2b$04$"] * 3


async def test_more_callers_than_can_be_answered_in_time_are_told_so_at_once(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 5)
    results = await asyncio.gather(*(passwords.hash("correct horse") for _ in range(8)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, NimbusError)]
    assert [r.reason for r in refused] == [Reason.OVERLOADED] * 3
    assert await passwords.hash("room again")

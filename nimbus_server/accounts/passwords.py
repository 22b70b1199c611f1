"""Password rules and hashes: bcrypt over SHA-256 of the password in NFKC, off the event loop.

The same characters are other bytes on other devices: `é` is one code point on most keyboards and two on a Mac. So a
password is normalized before it is hashed. NIST SP 800-63B names NFKC for that in its revision 3, and NFC in revision
4. It is NFKC here: what NFC makes the same NFKC does too, and it takes the wide forms of East Asian keyboards for the
usual ones. Hashes from before that are of what was typed, in whatever form that was.
"""

import asyncio
import base64
import hashlib
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TypeVar

import bcrypt

from nimbus_server.errors import Reason, field_error, overloaded

T = TypeVar("T")

LENGTH_MIN = 8
LENGTH_MAX = 1024
# Code points in which LENGTH_MAX characters may be typed: those of one character in NFD are four at most (UAX #15).
TYPED_MAX = 4 * LENGTH_MAX
# Combining marks in a row: to sort them takes time that grows with the square of their number. No language has more
# (UAX #15, Stream-Safe Text Format).
MARKS_MAX = 30
# No combining marks themselves, but made of such.
MADE_OF_MARKS = "\u0f73\u0f75\u0f81\uff9e\uff9f"
# At cost 12 a hash takes a quarter of a second: more than this could not be answered in time.
WAITING_MAX = 50


class Match(Enum):
    """Whether a password has a hash, and whether that is of the form in which passwords are hashed today."""

    NONE = auto()
    OUTDATED = auto()
    CURRENT = auto()


def check_strength(password: str, email: str) -> None:
    """Raise NimbusError with PASSWORD_WEAK, saying what is wrong, unless the password will do.

    Length and guessability only, no character classes: NIST SP 800-63B, section 5.1.1. Characters are code points of
    the NFKC.
    """
    password, email = _normalized(password), _normalized(email)
    if len(password) > LENGTH_MAX:
        problem = f"password must have at most {LENGTH_MAX} characters."
    elif len(password) < LENGTH_MIN:
        problem = f"password must have at least {LENGTH_MIN} characters."
    elif len(set(password)) < 3:
        problem = "password must not repeat the same one or two characters."
    elif password.casefold() in {email.casefold(), email.partition("@")[0].casefold()}:
        problem = "password must not be the email address."
    else:
        return
    raise field_error(Reason.PASSWORD_WEAK, "password", problem)


class Passwords:
    """Hashes and checks passwords.

    bcrypt reads 72 bytes at most, so it is given the base64 of the SHA-256: nothing of a long password is cut off.
    It runs on one thread of its own, where a flood of logins takes no more than one core from ingest; past WAITING_MAX
    callers get OVERLOADED.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bcrypt")
        self._nobody: str | None = None
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The bcrypt hash to store."""
        digest = _digest(_normalized(password))
        return await self._run(lambda: bcrypt.hashpw(digest, bcrypt.gensalt(self._cost)).decode())

    async def match(self, password: str, password_hash: str | None) -> Match:
        """Whether the password has this hash. None (no such user) takes as long as a wrong password, and is NONE."""
        if self._nobody is None:
            self._nobody = await self.hash("nobody has this password")
        expected = (password_hash or self._nobody).encode()
        forms = _forms(password)

        def first_match() -> int | None:
            return next((n for n, form in enumerate(forms) if bcrypt.checkpw(_digest(form), expected)), None)

        found = await self._run(first_match, hashes=len(forms))
        if found is None or password_hash is None:
            return Match.NONE
        return Match.OUTDATED if found else Match.CURRENT

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T], hashes: int = 1) -> T:
        if self._waiting + hashes > WAITING_MAX:
            raise overloaded()
        self._waiting += hashes
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= hashes


def _normalized(password: str) -> str:
    return _forms(password)[0]


def _forms(password: str) -> list[str]:
    """What may have been hashed, at most four: what is today, what was typed, and that as other devices have it.

    What would take long to normalize is taken as it is: nobody's keyboard types it.
    """
    if password.isascii() or len(password) > TYPED_MAX or _has_long_runs_of_marks(password):
        return [password]
    nfkc, nfc, nfd = (unicodedata.normalize(form, password) for form in ("NFKC", "NFC", "NFD"))
    return list(dict.fromkeys((nfkc, password, nfc, nfd)))


def _has_long_runs_of_marks(text: str) -> bool:
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) or character in MADE_OF_MARKS else 0
        if run > MARKS_MAX:
            return True
    return False


def _digest(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())

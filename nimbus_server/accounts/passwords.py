"""Password rules and hashes: bcrypt over SHA-256, off the event loop."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from nimbus_server.errors import Reason, field_error, overloaded

T = TypeVar("T")

LENGTH_MIN = 8
LENGTH_MAX = 1024
# At cost 12 a hash takes a quarter of a second: more than this could not be answered in time.
WAITING_MAX = 50


def check_strength(password: str, email: str) -> None:
    """Raise NimbusError with PASSWORD_WEAK, saying what is wrong, unless the password will do.

    Length and guessability only, no character classes: NIST SP 800-63B, section 5.1.1.
    """
    if len(password) < LENGTH_MIN:
        problem = f"password must have at least {LENGTH_MIN} characters."
    elif len(password) > LENGTH_MAX:
        problem = f"password must have at most {LENGTH_MAX} characters."
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
        return await self._run(lambda: bcrypt.hashpw(_digest(password), bcrypt.gensalt(self._cost)).decode())

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the password has this hash. None (no such user) takes as long and is False."""
        if self._nobody is None:
            self._nobody = await self.hash("nobody has this password")
        expected = password_hash or self._nobody
        same = await self._run(lambda: bcrypt.checkpw(_digest(password), expected.encode()))
        return same and password_hash is not None

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise overloaded()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1


def _digest(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())

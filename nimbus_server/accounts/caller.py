"""Who makes a call."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """A user in a session; `token_id` is the id of the token shown.

    Their right ends at `expires_at`, or with the session where that is None. It may be for `only_project`.
    """

    user_id: UUID
    session_id: UUID
    token_id: UUID
    expires_at: datetime | None = None
    only_project: UUID | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A project's key that signed the request at `signed_at`. `signature` is the verified hex digest."""

    project_id: UUID
    key_id: str
    signed_at: datetime
    signature: str


Caller = Person | Machine

current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)


def person() -> Person:
    """The person who makes this call; the RPC's access option guarantees that there is one."""
    caller = current_caller.get()
    if not isinstance(caller, Person):
        raise TypeError("this RPC has no access option that asks for a person")
    return caller


def caller() -> Caller:
    """Whoever makes this call; the RPC's access option guarantees that there is someone."""
    found = current_caller.get()
    if found is None:
        raise TypeError("this RPC has no access option that asks for a caller")
    return found

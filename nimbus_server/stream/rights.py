"""Ends streams whose callers have lost the right to them: a stream is let in once, and may last for months."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

import structlog

from nimbus_server.accounts.authenticator import session_ended
from nimbus_server.accounts.caller import Caller, Machine
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import token_expired
from nimbus_server.clock import Clock
from nimbus_server.consumers.store import HOLD_SECONDS, ConsumerStore, Hold
from nimbus_server.errors import (
    NimbusError,
    Reason,
    api_key_unknown,
    consumer_not_found,
    project_not_found,
    storage_unavailable,
)
from nimbus_server.projects.store import ProjectStore
from nimbus_server.stream.subscription import Subscription

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
EXPIRY_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class _Watched:
    """`held_until` is when somebody else may have its consumer, in the event loop's time."""

    subscription: Subscription
    caller: Caller
    hold: Hold | None
    held_until: float


@dataclass(frozen=True, slots=True)
class _InForce:
    """What is still there of all that streams rest on."""

    projects: set[UUID]
    keys: set[str]
    sessions: set[UUID]
    memberships: set[tuple[UUID, UUID]]


class Rights:
    """Watches over streams. Call `run` for as long as there may be any."""

    def __init__(self, accounts: AccountStore, projects: ProjectStore, consumers: ConsumerStore, clock: Clock) -> None:
        self._accounts = accounts
        self._projects = projects
        self._consumers = consumers
        self._clock = clock
        self._watched: set[_Watched] = set()

    @contextmanager
    def watching(self, subscription: Subscription, caller: Caller, hold: Hold | None) -> Iterator[None]:
        """End the subscription once its caller may not have it any more, or somebody else has the consumer."""
        # It was taken a moment ago. Half of that is left for certain, and the first renewal comes sooner.
        held_until = asyncio.get_running_loop().time() + HOLD_SECONDS / 2
        watched = _Watched(subscription, caller, hold, held_until)
        self._watched.add(watched)
        try:
            yield
        finally:
            self._watched.discard(watched)

    async def run(self) -> None:
        """Check all of them again and again, until cancelled."""
        # Apart: a look at rights that takes long must cost nobody their consumer.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again_and_again(CHECK_SECONDS, self._check))
            tasks.create_task(_again_and_again(CHECK_SECONDS, self._renew))
            tasks.create_task(_again_and_again(EXPIRY_SECONDS, self._expire))

    def _live(self) -> list[_Watched]:
        return [watched for watched in self._watched if not watched.subscription.has_ended]

    async def _check(self) -> None:
        watched = self._live()
        if not watched:
            return
        keys = {w.caller.key_id for w in watched if isinstance(w.caller, Machine)}
        people = {(w.caller, w.subscription.project_id) for w in watched if not isinstance(w.caller, Machine)}
        # What goes with something else is read before it: what was deleted in between is then missing from both.
        in_force = _InForce(
            memberships=await self._projects.memberships({(p.user_id, of) for p, of in people}) if people else set(),
            sessions=await self._accounts.open_sessions({p.session_id for p, _ in people}) if people else set(),
            keys=await self._accounts.api_keys_in_force(keys) if keys else set(),
            projects=await self._projects.existing({w.subscription.project_id for w in watched}),
        )
        for one in watched:
            if error := self._withdrawn(one, in_force):
                one.subscription.end(error)

    async def _renew(self) -> None:
        """Keep consumers for their streams, and end the streams of those that somebody else has, or nobody."""
        watched = [(one, one.hold) for one in self._live() if one.hold is not None]
        if not watched:
            return
        held_until = asyncio.get_running_loop().time() + HOLD_SECONDS
        renewed = await self._consumers.renew([hold for _, hold in watched])
        for one, hold in watched:
            if hold.id in renewed:
                one.held_until = held_until
            elif await self._consumers.position(hold.project_id, hold.name) is None:
                one.subscription.end(consumer_not_found(hold.name))
            else:
                one.subscription.end(_taken_over(hold))

    async def _expire(self) -> None:
        """End streams whose consumers may be somebody else's by now: the database was away for too long to say."""
        now = asyncio.get_running_loop().time()
        for one in self._live():
            if one.hold is not None and now >= one.held_until:
                one.subscription.end(storage_unavailable())

    def _withdrawn(self, watched: _Watched, in_force: _InForce) -> NimbusError | None:
        caller, project_id = watched.caller, watched.subscription.project_id
        if project_id not in in_force.projects:
            return project_not_found()
        if isinstance(caller, Machine):
            return None if caller.key_id in in_force.keys else api_key_unknown()
        if caller.session_id not in in_force.sessions:
            return session_ended()
        if caller.expires_at is not None and caller.expires_at <= self._clock():
            return token_expired()
        return None if (caller.user_id, project_id) in in_force.memberships else project_not_found()


async def _again_and_again(seconds: float, look: Callable[[], Awaitable[None]]) -> NoReturn:
    while True:
        await asyncio.sleep(seconds)
        try:
            await look()
        except NimbusError:
            pass  # the database is away: nothing comes out of it either
        except Exception:
            log.exception("the rights to streams could not be looked after")


def _taken_over(hold: Hold) -> NimbusError:
    return NimbusError(Reason.CONSUMER_TAKEN_OVER, f"Another stream has taken over the consumer {hold.name}.")

"""Ends streams whose callers have lost the right to them: a stream is let in once, and may last for months."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from nimbus_server.accounts.authenticator import session_ended
from nimbus_server.accounts.caller import Caller, Machine
from nimbus_server.accounts.store import AccountStore
from nimbus_server.accounts.tokens import token_expired
from nimbus_server.clock import Clock
from nimbus_server.consumers.store import ConsumerStore, Hold
from nimbus_server.errors import NimbusError, Reason, api_key_unknown, consumer_not_found, project_not_found
from nimbus_server.projects.store import ProjectStore
from nimbus_server.stream.subscription import Subscription

log = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0


@dataclass(frozen=True, eq=False, slots=True)
class _Watched:
    subscription: Subscription
    caller: Caller
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class _InForce:
    """What is still there of all that streams rest on."""

    projects: set[UUID]
    keys: set[str]
    sessions: set[UUID]
    memberships: set[tuple[UUID, UUID]]
    holds: set[UUID]


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
        watched = _Watched(subscription, caller, hold)
        self._watched.add(watched)
        try:
            yield
        finally:
            self._watched.discard(watched)

    async def run(self) -> None:
        """Check all of them again and again, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._check(list(self._watched))
            except NimbusError:
                pass  # the database is away: nothing comes out of it either
            except Exception:
                log.exception("rights could not be checked")

    async def _check(self, watched: list[_Watched]) -> None:
        if not watched:
            return
        keys = {w.caller.key_id for w in watched if isinstance(w.caller, Machine)}
        people = {(w.caller, w.subscription.project_id) for w in watched if not isinstance(w.caller, Machine)}
        holds = [w.hold for w in watched if w.hold is not None]
        in_force = _InForce(
            projects=await self._projects.existing({w.subscription.project_id for w in watched}),
            keys=await self._accounts.api_keys_in_force(keys) if keys else set(),
            sessions=await self._accounts.open_sessions({p.session_id for p, _ in people}) if people else set(),
            memberships=await self._projects.memberships({(p.user_id, of) for p, of in people}) if people else set(),
            holds=await self._consumers.renew(holds) if holds else set(),
        )
        for one in watched:
            error = self._withdrawn(one, in_force) or await self._consumer_lost(one, in_force)
            if error is not None:
                one.subscription.end(error)

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

    async def _consumer_lost(self, watched: _Watched, in_force: _InForce) -> NimbusError | None:
        hold = watched.hold
        if hold is None or hold.id in in_force.holds:
            return None
        if await self._consumers.position(hold.project_id, hold.name) is None:
            return consumer_not_found(hold.name)
        return NimbusError(Reason.CONSUMER_TAKEN_OVER, f"Another stream has taken over the consumer {hold.name}.")

"""One project's subscribers in this process, and the feed that they share."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from nimbus_server.stream.feed import Feed
from nimbus_server.stream.filter import EVERYTHING, EventFilter
from nimbus_server.stream.page import Page
from nimbus_server.stream.subscription import Subscription

# Readers of stored pages at a time, which may take long to find.
PROJECT_REPLAYS_MAX = 2


@dataclass(eq=False)
class Channel:
    """`groups` are the subscribers by what they want. `task` runs the feed, `replays` are turns to read without it."""

    feed: Feed
    task: asyncio.Task[None]
    replays: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PROJECT_REPLAYS_MAX))
    groups: dict[EventFilter, set[Subscription]] = field(default_factory=dict)

    @property
    def subscriptions(self) -> list[Subscription]:
        """All of them."""
        return [subscription for group in self.groups.values() for subscription in group]

    @property
    def size(self) -> int:
        """How many they are."""
        return sum(map(len, self.groups.values()))

    def add(self, subscription: Subscription) -> None:
        """One more."""
        self.groups.setdefault(subscription.filter, set()).add(subscription)

    def discard(self, subscription: Subscription) -> None:
        """One less."""
        group = self.groups[subscription.filter]
        group.discard(subscription)
        if not group:
            del self.groups[subscription.filter]
            self.feed.forget(subscription.filter)

    async def offer(self, page: Page) -> int:
        """Wake those for whom there is something in a page, let others pass over it, and say how many were woken.

        Not who is busy with another page, or takes none.
        """
        groups = dict(self.groups)
        # First those for whom nothing has to be found out, which may take a while.
        woken = _wake(groups.pop(EVERYTHING, ()))
        for which, matching in (await page.match(groups)).items():
            if matching:
                woken += _wake(groups[which])
            elif which in self.groups:
                self.feed.pass_over(which, page)
        return woken


def _wake(subscriptions: Collection[Subscription]) -> int:
    return sum([subscription.wake() for subscription in subscriptions])

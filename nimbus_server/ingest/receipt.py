"""What its sender is told of a batch."""

from dataclasses import dataclass
from functools import cached_property

from nimbus_server.ingest.commit import Stored
from nimbus_server.ingest.decode import Batch
from nimbus_server.ingest.event import Refusal


@dataclass(frozen=True)
class Receipt:
    """What became of a batch: `accepted`, `duplicates` and `refusals` are all the events in it."""

    batch: Batch
    outcome: Stored

    @property
    def accepted(self) -> int:
        """How many events were stored."""
        return len(self.outcome.events)

    @property
    def duplicates(self) -> int:
        """How many were stored before."""
        return len(self.batch.events) - self.accepted

    @property
    def refusals(self) -> list[Refusal]:
        """Those that are not valid."""
        return self.batch.refusals

    @cached_property
    def stored(self) -> dict[int, int]:
        """The indexes of the accepted events, with their positions."""
        return {event.place: seq for seq, event in enumerate(self.outcome.events, start=self.outcome.first_seq)}

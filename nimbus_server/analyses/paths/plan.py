"""What QueryPaths is asked, once it is found valid."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus_server.analyses.property import Property
from nimbus_server.analyses.selector import Selector
from nimbus_server.analyses.time_range import Range
from nimbus_server.clock import DAY, MINUTE

SESSION_GAP = 30 * MINUTE
# How far from its anchor a path within a session is followed.
SESSION_REACH = DAY


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid request. `within` is in microseconds, None for paths within a session."""

    range: Range
    anchor: Selector
    nodes: Selector
    node: Property
    backwards: bool
    steps: int
    within: int | None
    collapse_repeats: bool
    limit: int
    semantics: Mapping[str, str]

    @property
    def reach(self) -> int:
        """The longest time between an anchor and an event of its path, in microseconds."""
        return SESSION_REACH if self.within is None else self.within

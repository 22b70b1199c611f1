"""A funnel as it is computed: what request.py makes of a request, and the SQL and the answer are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus.v1.funnel_pb2 import FunnelAttribution, FunnelCounting, FunnelEntry, FunnelOrder
from nimbus_server.analyses.property import Property
from nimbus_server.analyses.selector import Selector
from nimbus_server.analyses.time_range import Range
from nimbus_server.analyses.zone import Buckets

ENTRY_FIRST = FunnelEntry.FUNNEL_ENTRY_FIRST
ORDERED, STRICT = FunnelOrder.FUNNEL_ORDER_ORDERED, FunnelOrder.FUNNEL_ORDER_STRICT
UNORDERED = FunnelOrder.FUNNEL_ORDER_UNORDERED
PEOPLE, TOTALS = FunnelCounting.FUNNEL_COUNTING_PEOPLE, FunnelCounting.FUNNEL_COUNTING_TOTALS
SESSIONS = FunnelCounting.FUNNEL_COUNTING_SESSIONS
AT_ENTRY, AT_STEP = FunnelAttribution.FUNNEL_ATTRIBUTION_ENTRY, FunnelAttribution.FUNNEL_ATTRIBUTION_STEP
LAST_TOUCH = FunnelAttribution.FUNNEL_ATTRIBUTION_LAST_TOUCH


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Events that end an attempt between two steps, which are numbered from 1."""

    selector: Selector
    from_step: int
    to_step: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A property whose values have a funnel each; `step` is that of the attribution STEP, numbered from 1."""

    measured: Property
    attribution: int
    step: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid request. Steps are numbered from 1; `optional` is 0 where no step is. Lengths are in microseconds.

    Events are read until before `reads_until`; starts lie in `range`. `semantics` is that of the response.
    """

    steps: tuple[Selector, ...]
    optional: int
    range: Range
    reads_until: int
    within: int
    entry: int
    order: int
    tie: int
    exclusions: tuple[Exclusion, ...]
    is_dropped: bool
    held: tuple[Property, ...]
    counting: int
    breakdown: Breakdown | None
    buckets: Buckets | None
    semantics: Mapping[str, str]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the steps."""
        return [number for number, _ in enumerate(self.steps, start=1)]

    @property
    def required(self) -> list[int]:
        """The numbers of the steps that can't be left out."""
        return [number for number in self.numbers if number != self.optional]

    def before(self, number: int) -> int:
        """The number of the step before one, the optional one passed over."""
        return number - 2 if number - 1 == self.optional else number - 1

    @property
    def selectors(self) -> list[Selector]:
        """Those of the steps and of the exclusions."""
        return [*self.steps, *(exclusion.selector for exclusion in self.exclusions)]

    @property
    def is_disjoint(self) -> bool:
        """Whether no event can match two steps, as far as their names tell."""
        names = [step.names for step in self.steps]
        known = [some for some in names if some is not None]
        return len(known) == len(names) and sum(map(len, known)) == len(frozenset().union(*known))

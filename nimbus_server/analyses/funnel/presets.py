"""What each preset fills in where a request leaves it out."""

from dataclasses import dataclass

from nimbus.v1.funnel_pb2 import FunnelAttribution, FunnelCompletes, FunnelEntry, FunnelOnExclusion
from nimbus.v1.question_pb2 import Preset, WeekStart


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values of the fields of QueryFunnelRequest with these names, and `attribution` of its breakdown.

    `tie_seconds` is for ordered steps alone.
    """

    within: str = "14d"
    completes: int = FunnelCompletes.FUNNEL_COMPLETES_AFTER_RANGE
    entry: int = FunnelEntry.FUNNEL_ENTRY_ANY
    tie_seconds: int = 0
    on_exclusion: int = FunnelOnExclusion.FUNNEL_ON_EXCLUSION_STOP
    week_start: int = WeekStart.WEEK_START_MONDAY
    attribution: int = FunnelAttribution.FUNNEL_ATTRIBUTION_ENTRY


PRESETS: dict[int, Defaults] = {
    Preset.PRESET_UNSPECIFIED: Defaults(),
    Preset.PRESET_MIXPANEL: Defaults(within="7d", entry=FunnelEntry.FUNNEL_ENTRY_FIRST, tie_seconds=2),
    Preset.PRESET_POSTHOG: Defaults(
        completes=FunnelCompletes.FUNNEL_COMPLETES_IN_RANGE,
        on_exclusion=FunnelOnExclusion.FUNNEL_ON_EXCLUSION_DROP,
        week_start=WeekStart.WEEK_START_SUNDAY,
        attribution=FunnelAttribution.FUNNEL_ATTRIBUTION_FIRST_TOUCH,
    ),
    Preset.PRESET_AMPLITUDE: Defaults(within="30d", tie_seconds=1),
}

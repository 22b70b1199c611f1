"""What each preset fills in where a request leaves it out."""

from dataclasses import dataclass

from nimbus.v1.funnel_pb2 import FunnelCompletes, FunnelEntry, FunnelOnExclusion
from nimbus.v1.question_pb2 import Preset, WeekStart


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values of the fields of QueryFunnelRequest with these names. `tie_seconds` is for ordered steps alone."""

    within: str = "14d"
    completes: FunnelCompletes = FunnelCompletes.FUNNEL_COMPLETES_AFTER_RANGE
    entry: FunnelEntry = FunnelEntry.FUNNEL_ENTRY_ANY
    tie_seconds: int = 0
    on_exclusion: FunnelOnExclusion = FunnelOnExclusion.FUNNEL_ON_EXCLUSION_STOP
    week_start: WeekStart = WeekStart.WEEK_START_MONDAY


PRESETS: dict[int, Defaults] = {
    Preset.PRESET_UNSPECIFIED: Defaults(),
    Preset.PRESET_MIXPANEL: Defaults(within="7d", entry=FunnelEntry.FUNNEL_ENTRY_FIRST, tie_seconds=2),
    Preset.PRESET_POSTHOG: Defaults(
        completes=FunnelCompletes.FUNNEL_COMPLETES_IN_RANGE,
        on_exclusion=FunnelOnExclusion.FUNNEL_ON_EXCLUSION_DROP,
        week_start=WeekStart.WEEK_START_SUNDAY,
    ),
    Preset.PRESET_AMPLITUDE: Defaults(within="30d", tie_seconds=1),
}

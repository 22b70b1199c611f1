"""How Mixpanel, PostHog and Amplitude count retention where nothing else is said, as far as they document it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nimbus.v1.question_pb2 import Preset, WeekStart
from nimbus.v1.retention_pb2 import RetentionAlignment, RetentionCohortBy, RetentionCounting, RetentionMean


@dataclass(frozen=True, slots=True)
class Rules:
    """What fills in the fields that a request leaves unset."""

    cohort_by: int = RetentionCohortBy.RETENTION_COHORT_BY_FIRST_IN_RANGE
    alignment: int = RetentionAlignment.RETENTION_ALIGNMENT_CALENDAR
    counting: int = RetentionCounting.RETENTION_COUNTING_ON
    mean: int = RetentionMean.RETENTION_MEAN_POOLED
    week_start: int = WeekStart.WEEK_START_MONDAY


RULES: Mapping[int, Rules] = {
    Preset.PRESET_UNSPECIFIED: Rules(),
    # docs.mixpanel.com/docs/reports/retention: "On or After" and rolling intervals are the defaults, and somebody is in
    # the bucket of every unit in which they did the first event. Its average weighs each cohort by its size a second
    # time, sum(returned * size) / sum(size * size): that can't be had, POOLED comes closest.
    Preset.PRESET_MIXPANEL: Rules(
        cohort_by=RetentionCohortBy.RETENTION_COHORT_BY_EVERY,
        alignment=RetentionAlignment.RETENTION_ALIGNMENT_ROLLING,
        counting=RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER,
    ),
    # posthog.com/docs/product-analytics/retention: recurring retention, on the interval, weighted mean; intervals of
    # the calendar, weeks from Sunday. Its interval 0 counts everybody in the cohort: that can't be had, but is `size`.
    Preset.PRESET_POSTHOG: Rules(
        cohort_by=RetentionCohortBy.RETENTION_COHORT_BY_EVERY, week_start=WeekStart.WEEK_START_SUNDAY
    ),
    # amplitude.com/docs/analytics/charts/retention-analysis: "Return On or After" is what the chart opens with, windows
    # of 24 hours, and each start event opens some. It rounds times down to the hour (to the day for weeks and months),
    # and counts a person once in its overall row: neither can be had.
    Preset.PRESET_AMPLITUDE: Rules(
        cohort_by=RetentionCohortBy.RETENTION_COHORT_BY_EVERY,
        alignment=RetentionAlignment.RETENTION_ALIGNMENT_ROLLING,
        counting=RetentionCounting.RETENTION_COUNTING_ON_OR_AFTER,
    ),
}

"""The options of questions. Meaning, default and bounds stand in the protos, beside the field of the same name."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypedDict

from nimbus.v1.funnel_pb2 import FunnelBreakdown, FunnelExclusion
from nimbus.v1.question_pb2 import EventSelector
from nimbus.v1.retention_pb2 import RetentionBracket
from nimbus.v1.trend_pb2 import TrendComparison, TrendFormula

# A name, or a selector.
Events = str | EventSelector
Operator = Literal[
    "EQUALS",
    "NOT_EQUALS",
    "CONTAINS",
    "NOT_CONTAINS",
    "STARTS_WITH",
    "MATCHES",
    "GREATER",
    "GREATER_OR_EQUAL",
    "LESS",
    "LESS_OR_EQUAL",
    "BETWEEN",
    "IS_SET",
    "IS_NOT_SET",
    "BEFORE",
    "AFTER",
]
Measure = Literal[
    "EVENTS",
    "PEOPLE",
    "EVENTS_PER_PERSON",
    "SESSIONS",
    "SUM",
    "AVERAGE",
    "MINIMUM",
    "MAXIMUM",
    "MEDIAN",
    "P90",
    "P95",
    "P99",
    "DISTINCT",
]
WeekStart = Literal["MONDAY", "SUNDAY", "SATURDAY"]


class QuestionOptions(TypedDict, total=False):
    """What every question takes. `last` (such as `30d`), or `start` with or without `end`, says which time."""

    last: str
    start: datetime
    end: datetime
    timezone: str
    min_position: int
    preset: Literal["MIXPANEL", "POSTHOG", "AMPLITUDE"]


class TrendOptions(QuestionOptions, total=False):
    """What a trend takes: the fields of QueryTrendRequest."""

    bucket: str
    week_start: WeekStart
    breakdowns: Iterable[str]
    breakdown_limit: int
    formulas: Iterable[TrendFormula]
    compare_to: TrendComparison


class FunnelOptions(QuestionOptions, total=False):
    """What a funnel takes: the fields of QueryFunnelRequest."""

    within: str
    completes: Literal["AFTER_RANGE", "IN_RANGE"]
    entry: Literal["ANY", "FIRST"]
    order: Literal["ORDERED", "STRICT", "UNORDERED"]
    tie_seconds: int
    exclusions: Iterable[FunnelExclusion]
    on_exclusion: Literal["STOP", "DROP"]
    hold_constant: Iterable[str]
    counting: Literal["PEOPLE", "TOTALS", "SESSIONS"]
    breakdown: FunnelBreakdown
    bucket: str
    week_start: WeekStart


class RetentionOptions(QuestionOptions, total=False):
    """What retention takes: the fields of QueryRetentionRequest. `start` and `return` are arguments of their own."""

    unit: Literal["HOUR", "DAY", "WEEK", "MONTH"]
    periods: int
    cohort_by: Literal["FIRST_IN_RANGE", "FIRST_EVER", "EVERY"]
    alignment: Literal["CALENDAR", "ROLLING"]
    counting: Literal["ON", "ON_OR_AFTER", "ON_OR_BEFORE"]
    brackets: Iterable[RetentionBracket]
    mean: Literal["POOLED", "SIMPLE"]
    week_start: WeekStart
    measure: Measure
    property: str


class PathOptions(QuestionOptions, total=False):
    """What paths take: the fields of QueryPathsRequest."""

    direction: Literal["AFTER", "BEFORE"]
    steps: int
    within: str
    collapse_repeats: bool
    node: str
    nodes: EventSelector
    limit: int

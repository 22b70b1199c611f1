"""Random logs and trends for Hypothesis: few people, names and values, and moments where the clocks change."""

from typing import Any

from google.protobuf.json_format import ParseDict
from hypothesis import strategies as st

from nimbus.v1.trend_pb2 import QueryTrendRequest
from nimbus_server.clock import DAY, MINUTE, moment
from nimbus_server.times import read_utc

QUARTER = 15 * MINUTE
# Zones, and a moment at which their clocks change, or which is odd in another way.
PLACES = [
    ("UTC", "2024-02-29T00:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/Havana", "2026-03-08T05:00Z"),  # no midnight
    ("America/Havana", "2026-11-01T05:00Z"),  # midnight twice
    ("America/St_Johns", "2010-11-07T02:31Z"),  # a minute after midnight back to the day before
    ("Asia/Kathmandu", "2026-01-01T00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),  # by half an hour
    ("Pacific/Apia", "2011-12-30T10:00Z"),  # a day left out
]
NAMES = st.sampled_from(["a", "a", "b", "$own"])
PEOPLE = st.sampled_from([None, None, "u1", "u2", "u3"])
VALUES = st.sampled_from(
    ["x", "x", "y", "X", "other", "unset", "", "5", 5, 5.0, 0.1, -3, 10**30, 2**53 + 1, True, None, [1, "x"], {"in": 1}]
)
NUMBERS = st.sampled_from([0, 1, 2, 2.5, -3, 7, 7, 1e9, 2**53 + 1, "7", "", True, None, [7], {"in": 7}])
PROPERTIES = ["props.k", "props.n", "props.k.in", "user_id", "name"]
SELECTORS = [
    {},
    {"names": ["a"]},
    {"names": ["b", "a", "b"]},
    {"names": ["$own"], "label": "Own"},
    {"filter": {"condition": {"property": "props.k", "operator": "CONDITION_OPERATOR_EQUALS", "values": ["x", 5]}}},
    {"filter": {"not": {"condition": {"property": "props.n", "operator": "CONDITION_OPERATOR_IS_SET"}}}},
]
OF_PROPERTY = ["SUM", "AVERAGE", "MINIMUM", "MAXIMUM", "MEDIAN", "P90", "P95", "P99", "DISTINCT"]
OF_EVENTS = ["UNSPECIFIED", "EVENTS", "PEOPLE", "EVENTS_PER_PERSON", "SESSIONS"]
EXPRESSIONS = ["A", "A / B * 100", "A - (B + 1) * -2", "(A - A) / (B - B)", "1.5 * B / A"]
SHIFTS = ["90m", "36h", "1d", "2d", "1w", "1mo", "1q", "1y"]
# The longest range for a bucket, so that there are few of them.
LONGEST = {"1m": 2 * 60 * MINUTE, "5m": 8 * 60 * MINUTE, "15m": DAY, "1h": 3 * DAY}


@st.composite
def trends(draw: st.DrawFn) -> tuple[QueryTrendRequest, list[dict[str, Any]]]:
    """A request and the events of its log, in order of `seq`."""
    zone, text = draw(st.sampled_from(PLACES))
    around = read_utc(text)
    bucket = draw(st.sampled_from(["", "", "1m", "5m", "15m", "1h", "1d", "1d", "1w", "1mo", "1q", "1y"]))
    offsets = st.integers(-10, 10) if LONGEST.get(bucket, DAY) < DAY else st.integers(-300, 300)
    times = st.builds(
        lambda quarters, off: around + quarters * QUARTER + off, offsets, st.sampled_from([0, 0, 0, -1, 1, 7 * MINUTE])
    )
    start = draw(times)
    length = draw(st.integers(1, 300).map(lambda quarters: quarters * QUARTER) | st.just(40 * DAY))
    end = start + min(length, LONGEST.get(bucket, length))
    times |= st.sampled_from([start, start - 1, end, end - 1])
    series = draw(st.lists(_series(), min_size=1, max_size=3))
    body = {
        "range": {"start": moment(start).isoformat(), "end": moment(end).isoformat()},
        "timezone": zone,
        "bucket": bucket,
        "preset": draw(st.sampled_from(["PRESET_UNSPECIFIED", "PRESET_POSTHOG"])),
        "weekStart": draw(st.sampled_from(["WEEK_START_UNSPECIFIED", "WEEK_START_SATURDAY"])),
        "series": series,
        "breakdowns": draw(st.lists(st.sampled_from(PROPERTIES), max_size=3)),
        "breakdownLimit": draw(st.sampled_from([0, 1, 2, 3])),
        "formulas": [
            {"expression": text, "label": label}
            for text, label in draw(
                st.lists(st.tuples(st.sampled_from(EXPRESSIONS), st.sampled_from(["", "Rate"])), max_size=2)
            )
            if "B" not in text or len(series) > 1
        ],
        "compareTo": draw(
            st.none() | st.just({"previous": True}) | st.sampled_from(SHIFTS).map(lambda shift: {"shift": shift})
        ),
    }
    events = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "t": times,
                    "name": NAMES,
                    "user_id": PEOPLE,
                    "anonymous_id": PEOPLE,
                    "props": st.fixed_dictionaries({}, optional={"k": VALUES, "n": NUMBERS}),
                }
            ),
            max_size=25,
        )
    )
    request = ParseDict({name: value for name, value in body.items() if value}, QueryTrendRequest())
    return request, [{"seq": seq, **event} for seq, event in enumerate(events, start=1)]


def _series() -> st.SearchStrategy[dict[str, Any]]:
    of_property = st.fixed_dictionaries(
        {
            "selector": st.sampled_from(SELECTORS),
            "measure": st.sampled_from(OF_PROPERTY).map(lambda name: f"TREND_MEASURE_{name}"),
            "property": st.sampled_from(["props.n", "props.n", *PROPERTIES]),
        }
    )
    of_events = st.fixed_dictionaries(
        {
            "selector": st.sampled_from(SELECTORS),
            "measure": st.sampled_from(OF_EVENTS).map(lambda name: f"TREND_MEASURE_{name}"),
        }
    )
    return of_events | of_property

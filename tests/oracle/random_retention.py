"""Random logs and questions about retention for Hypothesis, near days on which clocks do something."""

from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from oracle.retention import HOUR

from nimbus_server.clock import micros, moment

# A zone, and a day near which its clock does something.
CLOCKS = [
    ("UTC", "2025-05-30"),
    ("Europe/Berlin", "2025-03-28"),
    ("Europe/Berlin", "2025-10-24"),
    ("America/New_York", "2025-11-01"),
    ("America/Santiago", "2024-09-06"),  # leaps over midnight
    ("America/St_Johns", "2010-11-05"),  # goes back over midnight
    ("Asia/Kathmandu", "2024-02-27"),
    ("Pacific/Apia", "2011-12-28"),  # leaves out the 30th
    ("Australia/Lord_Howe", "2025-04-04"),  # by half an hour
]
PEOPLE = st.sampled_from([("u", None), ("u", "x"), ("v", None), ("v", "x"), (None, "x"), (None, "y"), (None, None)])
VALUES = st.sampled_from([None, 1, 2, 2.5, -3, "2", "text", True])
SELECTORS = st.sampled_from(
    [
        {},
        {"names": ["a"]},
        {"names": ["a", "b"]},
        {"names": ["b"]},
        {"names": ["$c", "a"]},
        {"filter": {"condition": {"property": "props.n", "operator": "CONDITION_OPERATOR_GREATER", "values": [1]}}},
    ]
)
MEASURES = [
    *[(name, "") for name in ("EVENTS", "PEOPLE", "EVENTS_PER_PERSON")],
    *[
        (name, "props.n")
        for name in ("SUM", "AVERAGE", "MINIMUM", "MAXIMUM", "MEDIAN", "P90", "P95", "P99", "DISTINCT")
    ],
]


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], datetime]:
    """A request, a log, and the moment of the answer."""
    zone, day = draw(st.sampled_from(CLOCKS))
    unit = draw(st.sampled_from(["HOUR", "DAY", "DAY", "WEEK", "MONTH"]))
    hours = {"HOUR": 12, "DAY": 7 * 24, "WEEK": 21 * 24, "MONTH": 70 * 24}[unit]
    base = micros(datetime.fromisoformat(f"{day}T00:00:00Z"))
    half_hours = st.builds(
        lambda halves, away: base + halves * HOUR // 2 + away,
        st.integers(-hours // 2, 4 * hours),
        st.sampled_from([0, 0, 0, 0, 1, -1, 60_000_000]),
    )
    start = draw(half_hours)
    end = draw(st.integers(1, 2 * hours)) * HOUR // 2 + start
    request: dict[str, Any] = {
        "range": {"start": moment(start).isoformat(), "end": moment(end).isoformat()},
        "timezone": zone,
        "start": draw(SELECTORS),
        "return": draw(SELECTORS),
        "unit": f"RETENTION_UNIT_{unit}",
        "cohort_by": draw(st.integers(0, 3)),
        "alignment": draw(st.integers(0, 2)),
        "mean": draw(st.integers(0, 2)),
        "week_start": draw(st.integers(0, 3)),
    }
    kind = draw(st.sampled_from(["periods", "periods", "brackets", "measure", "many"]))
    if kind == "brackets":
        edges = sorted(draw(st.sets(st.integers(0, 9), min_size=2, max_size=6)))
        request["brackets"] = [
            {"first": first, "last": last} for first, last in zip(edges[::2], edges[1::2], strict=False)
        ]
    else:
        request["periods"] = draw(st.integers(61, 70) if kind == "many" else st.integers(0, 5))
    if kind in {"periods", "many"}:
        request["counting"] = draw(st.integers(0, 3))
    if kind == "measure" or (draw(st.integers(0, 5)) == 0 and request.get("counting", 0) < 2):
        measure, path = draw(st.sampled_from(MEASURES))
        request |= {"measure": f"TREND_MEASURE_{measure}", "property": path}
    times = [*draw(st.lists(half_hours, max_size=4)), start, end, end - 1]
    event = st.builds(
        lambda t, name, person, value: {
            "t": t,
            "name": name,
            "user_id": person[0],
            "anonymous_id": person[1],
            "props": {} if value is None else {"n": value},
        },
        half_hours | st.sampled_from(times),
        st.sampled_from(["a", "a", "b", "$c"]),
        PEOPLE,
        VALUES,
    )
    log = [{"seq": seq, **one} for seq, one in enumerate(draw(st.lists(event, max_size=25)), 1)]
    return request, log, moment(draw(half_hours))

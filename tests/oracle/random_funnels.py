"""Random events and funnels for Hypothesis: few people, names and moments, so that everything meets."""

from typing import Any

from hypothesis import strategies as st

from nimbus_server.times import read_utc

START = read_utc("2026-01-01T12:00:00Z")
# Moments lie whole units apart: seconds, so that ties meet, or ten minutes, so that sessions end.
UNITS = {1_000_000: ("s", 1), 600_000_000: ("m", 10)}
_NAMES = st.sampled_from("ABCD")
_VALUES = st.sampled_from(["x", "y", 5, "5", True, None])
_PROPS = st.fixed_dictionaries({}, optional={"p": _VALUES, "q": st.sampled_from(["x", "x", "x", "y"])})


def _events(unit: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries(
        {
            "t": st.integers(-1, 12).map(lambda moments: START + moments * unit),
            "name": st.sampled_from("AABBCCD"),
            "user_id": st.sampled_from(["u1", "u1", "u1", "u1", "u2", None]),
            "anonymous_id": st.sampled_from(["u2", "a3", None]),
            "props": _PROPS,
            "context": st.just({}),
        }
    )
    return (
        st.sampled_from([0, 6, 12, 18, 24]).flatmap(lambda n: st.lists(one, min_size=n, max_size=n)).flatmap(_numbered)
    )


def _numbered(events: list[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Events come late: their positions are not in the order of their times."""
    return st.permutations(range(1, len(events) + 1)).map(
        lambda places: [{**event, "seq": seq} for event, seq in zip(events, places, strict=True)]
    )


_FILTER = st.sampled_from(["x", "y"]).map(
    lambda value: {"condition": {"property": "props.p", "operator": "CONDITION_OPERATOR_EQUALS", "values": [value]}}
)
_SELECTORS = st.one_of(
    _NAMES.map(lambda name: {"names": [name]}),
    _NAMES.map(lambda name: {"names": [name]}),
    st.lists(_NAMES, min_size=1, max_size=2, unique=True).map(lambda names: {"names": names}),
    st.builds(lambda name, given: {"names": [name], "filter": given}, _NAMES, _FILTER),
    st.just({}),
)
_STEPS = st.one_of(
    st.sampled_from(["AB", "ABC", "ABCD", "BAC"]).map(lambda names: [{"names": [name]} for name in names]),
    st.lists(_SELECTORS, min_size=2, max_size=4),
)


@st.composite
def _requests(draw: st.DrawFn, unit: int) -> dict[str, Any]:
    order = draw(st.sampled_from(["ORDERED", "ORDERED", "ORDERED", "STRICT", "UNORDERED"]))
    steps = [{"selector": selector} for selector in draw(_STEPS)]
    request: dict[str, Any] = {"steps": steps, "order": f"FUNNEL_ORDER_{order}"}
    taken: list[int] = []
    if order == "ORDERED":
        request["tie_seconds"] = draw(st.sampled_from([0, 0, 1, 2]))
        if len(steps) > 2 and draw(st.booleans()):
            taken = [draw(st.integers(1, len(steps) - 2))]
            steps[taken[0]]["optional"] = True
        request["exclusions"] = draw(st.lists(_exclusion(len(steps), taken), max_size=2))
    letter, times = UNITS[unit]
    # 2026-01-01T12:00:00Z and 5 to 12 units later.
    start, length = draw(st.sampled_from([0, 0, 1, 3])), draw(st.sampled_from([12, 8, 4]))
    for name in ("entry ANY FIRST", "counting PEOPLE PEOPLE TOTALS SESSIONS", "completes AFTER_RANGE IN_RANGE"):
        field, *values = name.split()
        request[field] = f"FUNNEL_{field.upper()}_{draw(st.sampled_from(values))}"
    return request | {
        "range": {"start": _time(start * unit), "end": _time((start + length) * unit)},
        "within": f"{draw(st.sampled_from([6, 4, 8, 2, 1])) * times}{letter}",
        "on_exclusion": f"FUNNEL_ON_EXCLUSION_{draw(st.sampled_from(['STOP', 'DROP']))}",
        "hold_constant": draw(st.sampled_from([[], [], [], ["props.q"], ["props.q", "props.p"]])),
        "bucket": draw(st.sampled_from(["", "1m", "1h"])),
        **draw(_breakdown(len(steps))),
    }


def _time(after: int) -> str:
    seconds = after // 1_000_000
    return f"2026-01-01T{12 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"


def _exclusion(count: int, taken: list[int]) -> st.SearchStrategy[dict[str, Any]]:
    numbers = [number for number in range(1, count + 1) if number - 1 not in taken]
    pairs = [(first, last) for first in numbers for last in numbers if first < last]
    return st.builds(
        lambda selector, pair: {"selector": selector, "from_step": pair[0], "to_step": pair[1]},
        _SELECTORS,
        st.sampled_from(pairs),
    )


def _breakdown(count: int) -> st.SearchStrategy[dict[str, Any]]:
    attributions = st.sampled_from(["ENTRY", "STEP", "FIRST_TOUCH", "LAST_TOUCH"])

    def of(attribution: str, step: int, path: str) -> dict[str, Any]:
        given = {"property": path, "attribution": f"FUNNEL_ATTRIBUTION_{attribution}"}
        return {"breakdown": given | ({"step": step} if attribution == "STEP" else {})}

    return st.just({}) | st.builds(of, attributions, st.integers(1, count), st.sampled_from(["props.p", "name"]))


_UNIT = st.shared(st.sampled_from([*UNITS]), key="unit of time")
EVENTS = _UNIT.flatmap(_events)
REQUESTS = _UNIT.flatmap(_requests)

"""Random logs and questions about paths for Hypothesis."""

from datetime import UTC, datetime

from google.protobuf.json_format import ParseDict
from hypothesis import strategies as st

from nimbus.v1.paths_pb2 import QueryPathsRequest
from nimbus_server.clock import MINUTE, SECOND, micros

START = datetime(2025, 3, 29, tzinfo=UTC)
LIMITS = {"start": "2025-03-29T00:00:00Z", "end": "2025-03-29T12:00:00Z"}
HALF_A_DAY = 12 * 60 * MINUTE

# Many ties, sessions that just hold and just do not, days apart, and both edges of the range.
TIMES = st.one_of(
    st.builds(
        lambda halves, seconds: micros(START) + halves * 30 * MINUTE + seconds * SECOND,
        st.integers(-4, 30),
        st.sampled_from([0, 0, 0, 1, -1]),
    ),
    st.integers(micros(START) - 3 * HALF_A_DAY, micros(START) + 4 * HALF_A_DAY),
)
NAMES = st.sampled_from(["a", "b", "c", "$own"])
EVENTS = (
    st.lists(
        st.fixed_dictionaries(
            {
                "t": TIMES,
                "name": NAMES,
                "user_id": st.sampled_from([None, "ada", "ada", "bob"]),
                "anonymous_id": st.sampled_from([None, "ada", "eve"]),
                "props": st.sampled_from(
                    [{}, {"page": "/"}, {"page": "/x"}, {"page": 5}, {"page": "5"}, {"page": [1]}]
                ),
            }
        ),
        max_size=18,
    )
    .flatmap(st.permutations)
    .map(lambda events: [{"seq": seq, **event} for seq, event in enumerate(events, start=1)])
)
HAS_PAGE = {"condition": {"property": "props.page", "operator": "CONDITION_OPERATOR_IS_SET"}}
SELECTORS = st.sampled_from(
    [{}, {}, {"names": ["a"]}, {"names": ["b", "c"]}, {"names": ["$own", "a"]}, {"filter": HAS_PAGE}]
)
REQUESTS = st.fixed_dictionaries(
    {"range": st.just(LIMITS), "anchor": SELECTORS},
    optional={
        "direction": st.sampled_from(["PATH_DIRECTION_AFTER", "PATH_DIRECTION_BEFORE"]),
        "steps": st.sampled_from([1, 2, 3, 4, 10]),
        "within": st.sampled_from(["1s", "30m", "1h", "1d", "2w"]),
        "collapse_repeats": st.booleans(),
        "node": st.sampled_from(["name", "props.page", "anonymous_id"]),
        "nodes": SELECTORS,
        "limit": st.integers(1, 3),
    },
).map(lambda fields: ParseDict(fields, QueryPathsRequest()))

"""Nested JSON bodies are read as strictly as flat ones, and errors name the path of what is wrong."""

from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from nimbus.v1.funnel_pb2 import FunnelOrder, QueryFunnelRequest
from nimbus.v1.people_pb2 import ListPeopleBehindRequest
from nimbus.v1.question_pb2 import Condition, ConditionOperator, EventSelector, Preset
from nimbus.v1.retention_pb2 import QueryRetentionRequest, RetentionBracket
from nimbus.v1.trend_pb2 import QueryTrendRequest
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.rpc.json_body import read_json_body

REQUESTS = [QueryTrendRequest, QueryFunnelRequest, QueryRetentionRequest, ListPeopleBehindRequest]


def read(request: Any, body: object) -> Any:
    request.json_body.data = body if isinstance(body, bytes) else orjson.dumps(body)
    read_json_body(request, "/v1/somewhere")
    return request


def test_a_nested_body_becomes_the_request() -> None:
    body = {
        "range": {"start": "2024-01-01T00:00:00.5+01:00", "last": ""},
        "preset": "MIXPANEL",
        "min_position": "9007199254740993",
        "order": "FUNNEL_ORDER_STRICT",
        "hold_constant": ["props.a"],
        "tie_seconds": 0,
        "steps": [
            {"selector": {"names": ["a", "b"], "filter": {"not": {"condition": None}}}},
            {
                "optional": True,
                "selector": {
                    "filter": {
                        "condition": {"property": "props.p", "operator": "EQUALS", "values": ["5", 5, 0.5, True, 2**63]}
                    }
                },
            },
            {},
        ],
    }
    request = read(QueryFunnelRequest(project_id="p"), body)
    assert request.project_id == "p"
    assert request.range.start.ToJsonString() == "2023-12-31T23:00:00.500Z"
    assert request.preset == Preset.PRESET_MIXPANEL
    assert request.min_position == 9007199254740993
    assert request.order == FunnelOrder.FUNNEL_ORDER_STRICT
    assert [*request.hold_constant] == ["props.a"]
    assert request.HasField("tie_seconds")
    first, second, third = request.steps
    assert [*first.selector.names] == ["a", "b"]
    assert first.selector.filter.HasField("not")
    assert not getattr(first.selector.filter, "not").HasField("condition")
    condition: Condition = second.selector.filter.condition
    assert condition.operator == ConditionOperator.CONDITION_OPERATOR_EQUALS
    kinds = [value.WhichOneof("kind") for value in condition.values]
    assert kinds == ["string_value", "number_value", "number_value", "bool_value", "number_value"]
    assert second.optional
    assert third == type(third)()


def test_an_empty_object_is_a_message_that_is_there() -> None:
    request = read(QueryFunnelRequest(), {"range": {}})
    assert request.HasField("range")
    assert not read(QueryFunnelRequest(), {"range": None}).HasField("range")


def test_a_bracket_is_two_numbers_or_an_object() -> None:
    request = read(QueryRetentionRequest(), {"brackets": [[1, 1], {"first": 2, "last": 3}]})
    assert [*request.brackets] == [RetentionBracket(first=1, last=1), RetentionBracket(first=2, last=3)]


def within_condition(name: str, value: object) -> dict[str, Any]:
    return {"steps": [{}, {"selector": {"filter": {"any_of": [{"condition": {name: value}}]}}}]}


AT = "steps[1].selector.filter.any_of[0].condition"


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"step": []}, Reason.FIELD_UNKNOWN, "step"),
        (within_condition("operators", 1), Reason.FIELD_UNKNOWN, f"{AT}.operators"),
        (within_condition("x" * 5000, 1), Reason.FIELD_UNKNOWN, f"{AT}.{'x' * 100}"),
        (within_condition("operator", "LIKE"), Reason.FIELD_INVALID, f"{AT}.operator"),
        (within_condition("operator", "equals"), Reason.FIELD_INVALID, f"{AT}.operator"),
        (within_condition("operator", 99), Reason.FIELD_INVALID, f"{AT}.operator"),
        (within_condition("operator", True), Reason.FIELD_INVALID, f"{AT}.operator"),
        (within_condition("operator", ["EQUALS"]), Reason.FIELD_INVALID, f"{AT}.operator"),
        (within_condition("property", 5), Reason.FIELD_INVALID, f"{AT}.property"),
        (within_condition("values", "a"), Reason.FIELD_INVALID, f"{AT}.values"),
        (within_condition("values", ["a", None]), Reason.FIELD_INVALID, f"{AT}.values[1]"),
        (within_condition("values", ["a", ["b"]]), Reason.FIELD_INVALID, f"{AT}.values[1]"),
        (within_condition("values", ["a"] * 1001), Reason.FIELD_TOO_LONG, f"{AT}.values"),
        ({"steps": [{"selector": {"names": ["a", 5]}}]}, Reason.FIELD_INVALID, "steps[0].selector.names[1]"),
        ({"steps": [{"selector": []}]}, Reason.FIELD_INVALID, "steps[0].selector"),
        ({"steps": [None]}, Reason.FIELD_INVALID, "steps[0]"),
        ({"steps": {}}, Reason.FIELD_INVALID, "steps"),
        ({"steps": [{"optional": 1}]}, Reason.FIELD_INVALID, "steps[0].optional"),
        ({"range": {"start": "yesterday"}}, Reason.FIELD_INVALID, "range.start"),
        ({"range": {"start": 5}}, Reason.FIELD_INVALID, "range.start"),
        ({"range": "30d"}, Reason.FIELD_INVALID, "range"),
        ({"tie_seconds": 1.5}, Reason.FIELD_INVALID, "tie_seconds"),
        ({"min_position": "1_0"}, Reason.FIELD_INVALID, "min_position"),
        ({"json_body": {}}, Reason.FIELD_UNKNOWN, "json_body"),
        ({"project_id": "q"}, Reason.FIELD_INVALID, "project_id"),
    ],
)
def test_what_is_unknown_or_wrong_is_named_with_its_path(body: object, reason: Reason, field: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read(QueryFunnelRequest(project_id="p"), body)
    assert [violation.field for violation in failed.value.violations] == [field]


def test_a_field_twice_at_any_depth_is_refused() -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID) as failed:
        read(QueryFunnelRequest(), b'{"steps": [{"selector": {"label": "a", "label": "b"}}]}')
    assert [violation.field for violation in failed.value.violations] == ["label"]


def test_a_question_has_no_body_of_its_own_and_one_kind() -> None:
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "trend.json_body"):
        read(ListPeopleBehindRequest(), {"trend": {"json_body": {}}})
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "funnel"):
        read(ListPeopleBehindRequest(), {"trend": {}, "funnel": {}})
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "trend.compare_to.shift"):
        read(ListPeopleBehindRequest(), {"trend": {"compare_to": {"previous": True, "shift": "1y"}}})


def test_a_brackets_list_has_two_numbers() -> None:
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "brackets[0]"):
        read(QueryRetentionRequest(), {"brackets": [[1, 2, 3]]})
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "brackets[0].last"):
        read(QueryRetentionRequest(), {"brackets": [[1, "x"]]})


@pytest.mark.parametrize("levels", [40, 400, 4_000])
def test_what_is_nested_too_deeply_is_refused(levels: int) -> None:
    body = b'{"start": {"filter": ' + b'{"not": ' * levels + b"{}" + b"}" * levels + b"}}"
    with pytest.raises(NimbusError, check=lambda e: e.reason in {Reason.FIELD_INVALID, Reason.REQUEST_UNPARSABLE}):
        read(QueryRetentionRequest(), body)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3)
)
NAMES = st.sampled_from(
    [
        *sorted({field.name for request in REQUESTS for field in request.DESCRIPTOR.fields}),
        *("selector", "filter", "not", "all_of", "condition", "property", "operator", "values", "first", "last", "x"),
    ]
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["EQUALS", "2024-01-01T00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(REQUESTS), st.dictionaries(NAMES, VALUES, max_size=3))
def test_no_body_makes_another_error(request_class: Any, body: dict[str, Any]) -> None:
    try:
        read(request_class(), body)
    except NimbusError as error:
        assert error.reason in {Reason.FIELD_UNKNOWN, Reason.FIELD_INVALID, Reason.REQUEST_UNPARSABLE}  # noqa: PT017


@given(
    st.builds(
        lambda label, names, operator, values: EventSelector(
            label=label,
            names=names,
            filter={"condition": {"operator": operator, "values": [{"string_value": value} for value in values]}},
        ),
        st.text(max_size=5),
        st.lists(st.text(max_size=5), max_size=3),
        st.sampled_from(ConditionOperator.values()),
        st.lists(st.text(max_size=5), max_size=3),
    )
)
def test_what_protobuf_writes_as_json_is_read_as_it_was(selector: EventSelector) -> None:
    as_json = json_format.MessageToDict(selector, preserving_proto_field_name=True)
    assert read(QueryFunnelRequest(), {"steps": [{"selector": as_json}]}).steps[0].selector == selector

"""Selectors are read strictly, and errors name the path of what is wrong."""

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from oracle.random_events import PATHS

from nimbus.v1.funnel_pb2 import QueryFunnelRequest
from nimbus.v1.question_pb2 import Condition, EventSelector, Filter
from nimbus.v1.trend_pb2 import QueryTrendRequest
from nimbus_server.analyses.property import Property, property_field
from nimbus_server.analyses.question import Asked
from nimbus_server.analyses.questions import read_question
from nimbus_server.analyses.selector import Selector, read_selector
from nimbus_server.clock import now
from nimbus_server.errors import NimbusError, Reason


def read(selector: dict[str, Any]) -> Selector:
    return read_selector("steps[1].selector", ParseDict(selector, EventSelector()))


def condition(operator: str | int = "IS_SET", values: list[Any] | None = None, path: str = "props.p") -> dict[str, Any]:
    full = f"CONDITION_OPERATOR_{operator}" if isinstance(operator, str) else operator
    return {"condition": {"property": path, "operator": full, "values": values or []}}


def test_a_selector_says_which_names_and_properties_it_reads() -> None:
    given_filter = {"all_of": [condition(), {"not": condition(path="context.a\\.b")}, condition(path="user_id")]}
    selector = read({"names": ["b", "a", "b"], "filter": given_filter})
    assert selector.names == {"a", "b"}
    assert selector.properties == {Property("props", ("p",)), Property("context", ("a.b",)), Property("user_id")}


@pytest.mark.parametrize(
    ("selector", "label"),
    [({}, "All events"), ({"names": ["b", "a", "b"]}, "b, a"), ({"names": ["a"], "label": "Sign up"}, "Sign up")],
)
def test_the_label_is_given_or_the_names(selector: dict[str, Any], label: str) -> None:
    assert read(selector).label == label


def nested(levels: int) -> dict[str, Any]:
    return {"not": nested(levels - 1)} if levels > 1 else condition()


def test_a_filter_has_five_levels_and_no_more() -> None:
    read({"filter": nested(5)})
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_INVALID) as failed:
        read({"filter": nested(6)})
    assert failed.value.violations[0].field == "steps[1].selector.filter.not.not.not.not.not"


def test_a_question_has_a_hundred_conditions_and_no_more() -> None:
    read({"filter": {"all_of": [condition()] * 100}})
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_TOO_LONG):
        read({"filter": {"all_of": [condition()] * 101}})
    half = ParseDict({"filter": {"all_of": [condition()] * 51}}, EventSelector())
    request = QueryFunnelRequest(steps=[{"selector": half}, {"selector": half}])
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_TOO_LONG):
        read_question("QueryFunnel", request, Asked(now(), "UTC"))


def test_a_question_of_very_many_empty_filters_is_refused_before_they_are_read() -> None:
    selector = EventSelector()
    selector.filter.any_of.extend([Filter(any_of=[Filter()])] * 10_000)
    with pytest.raises(NimbusError, check=lambda e: e.reason is Reason.FIELD_TOO_LONG) as failed:
        read_question("QueryTrend", QueryTrendRequest(series=[{"selector": selector}]), Asked(now(), "UTC"))
    assert "parts" in failed.value.message


INVALID, REQUIRED, TOO_LONG = Reason.FIELD_INVALID, Reason.FIELD_REQUIRED, Reason.FIELD_TOO_LONG
C = "filter.condition"


@pytest.mark.parametrize(
    ("selector", "reason", "field"),
    [
        ({"names": [""]}, REQUIRED, "names"),
        ({"names": ["a\0"]}, INVALID, "names"),
        ({"names": ["a" * 201]}, TOO_LONG, "names"),
        ({"names": ["a"] * 101}, TOO_LONG, "names"),
        ({"label": "a" * 201}, TOO_LONG, "label"),
        ({"filter": {}}, INVALID, "filter"),
        ({"filter": {"all_of": []}}, INVALID, "filter"),
        ({"filter": {"any_of": [condition(), {}]}}, INVALID, "filter.any_of[1]"),
        ({"filter": {"any_of": [condition()], "not": condition()}}, INVALID, "filter"),
        ({"filter": {"not": {}}}, INVALID, "filter.not"),
        ({"filter": condition("UNSPECIFIED")}, REQUIRED, f"{C}.operator"),
        ({"filter": condition(99)}, INVALID, f"{C}.operator"),
        ({"filter": condition("IS_SET", ["a"])}, INVALID, f"{C}.values"),
        ({"filter": condition("EQUALS")}, INVALID, f"{C}.values"),
        ({"filter": condition("EQUALS", ["a"] * 1001)}, TOO_LONG, f"{C}.values"),
        ({"filter": condition("EQUALS", ["a", None])}, INVALID, f"{C}.values[1]"),
        ({"filter": condition("EQUALS", [["a"]])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("EQUALS", ["a\0"])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("CONTAINS", ["a", 5])}, INVALID, f"{C}.values[1]"),
        ({"filter": condition("GREATER", ["5"])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("GREATER", [True])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("GREATER", [5, 6])}, INVALID, f"{C}.values"),
        ({"filter": condition("BETWEEN", [5])}, INVALID, f"{C}.values"),
        ({"filter": condition("BEFORE", ["yesterday"])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("AFTER", [5])}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("MATCHES", ["a"] * 11)}, INVALID, f"{C}.values"),
        ({"filter": condition("MATCHES", ["a", "a" * 501])}, TOO_LONG, f"{C}.values[1]"),
        ({"filter": condition("EQUALS", ["2024-01-01T00:00Z"], "ts")}, INVALID, f"{C}.operator"),
        ({"filter": condition("BEFORE", ["soon"], "ts")}, INVALID, f"{C}.values[0]"),
        ({"filter": condition("BEFORE", [], "ts")}, INVALID, f"{C}.values"),
        ({"filter": condition(path="")}, REQUIRED, f"{C}.property"),
        ({"filter": condition(path="props." + "a" * 500)}, TOO_LONG, f"{C}.property"),
        *(
            ({"filter": condition(path=path)}, INVALID, f"{C}.property")
            for path in [
                "props",
                "context",
                "person.plan",
                "Name",
                "name.x",
                "props.a\\",
                "props.\\a",
                "props.\0",
                "x.y",
            ]
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_path(selector: dict[str, Any], reason: Reason, field: str) -> None:
    with pytest.raises(NimbusError, check=lambda e: e.reason is reason) as failed:
        read(selector)
    assert failed.value.violations[0].field == f"steps[1].selector.{field}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    wrong = Condition(property="props.p", operator="CONDITION_OPERATOR_EQUALS", values=[Value(number_value=number)])
    with pytest.raises(NimbusError, check=lambda e: e.violations[0].field == "s.filter.condition.values[0]"):
        read_selector("s", EventSelector(filter=Filter(condition=wrong)))


@given(PATHS)
def test_the_path_of_a_property_leads_to_it_again(path: str) -> None:
    assert property_field("property", path).path == path


def test_the_keys_of_a_path_are_told_apart() -> None:
    assert property_field("property", r"props.a\.b.c\\.d").keys == ("a.b", "c\\", "d")
    assert property_field("property", "props..").keys == ("", "")

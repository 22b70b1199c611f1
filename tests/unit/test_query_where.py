"""What people type after --where."""

import pytest
from google.protobuf.json_format import MessageToDict

from nimbus_server.errors import StartupError
from nimbus_server.query.where import read_where


@pytest.mark.parametrize(
    ("text", "path", "operator", "values"),
    [
        ("props.plan=pro", "props.plan", "EQUALS", ["pro"]),
        ("props.plan = pro plus", "props.plan", "EQUALS", ["pro plus"]),
        ("props.plan!=pro", "props.plan", "NOT_EQUALS", ["pro"]),
        ("props.amount>=10.5", "props.amount", "GREATER_OR_EQUAL", [10.5]),
        ("props.amount<0", "props.amount", "LESS", [0.0]),
        ("props.paid=true", "props.paid", "EQUALS", [True]),
        ('props.zip="5"', "props.zip", "EQUALS", ["5"]),
        ("props.page~/cart?a=b", "props.page", "CONTAINS", ["/cart?a=b"]),
        ("props.page!~cart", "props.page", "NOT_CONTAINS", ["cart"]),
        ("name^check", "name", "STARTS_WITH", ["check"]),
        ("props.plan=", "props.plan", "EQUALS", [""]),
        (r"props.a\.b\=c=d", r"props.a\.b=c", "EQUALS", ["d"]),
        ("props.list=[1]", "props.list", "EQUALS", ["[1]"]),
        ("props.plan", "props.plan", "IS_SET", []),
        ("!props.plan", "props.plan", "IS_NOT_SET", []),
    ],
)
def test_a_condition_is_read_as_it_looks(text: str, path: str, operator: str, values: list[object]) -> None:
    read = read_where([text])
    assert read is not None
    condition = MessageToDict(read, preserving_proto_field_name=True)["all_of"][0]["condition"]
    assert condition["property"] == path
    assert condition["operator"] == f"CONDITION_OPERATOR_{operator}"
    assert condition.get("values", []) == values


@pytest.mark.parametrize("text", ["", "=pro", "!props.plan=pro", ">5"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(StartupError, match=r"props\.plan=pro"):
        read_where([text])


def test_several_conditions_all_hold() -> None:
    read = read_where(["props.plan=pro", "props.amount>5"])
    assert read is not None
    assert len(read.all_of) == 2
    assert read_where([]) is None

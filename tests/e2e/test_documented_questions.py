"""Questions in plain JSON over REST, and the same over gRPC, have the answers that their documentation says."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import grpc
import pytest
from asking import until_it_answers
from conftest import Account, Stack, new_account
from credentials import machine, person
from surface import RPCS
from transports import encoded, over_native_grpc, over_rest

from nimbus_server.rpc.json_fields import merge_fields

TODAY = datetime.combine(datetime.now(UTC).date(), time(), UTC)
# Of a week that is over, whatever the time zone.
MONDAY = TODAY - timedelta(days=TODAY.weekday() + 14)
WEEK = {"start": MONDAY.isoformat(), "end": (MONDAY + timedelta(days=7)).isoformat()}
# A text, two numbers that are the same, none, null, a list and a boolean.
VALUES: dict[str, Any] = {"a": "5", "b": 5, "c": 5.0, "d": None, "f": [5, "x"], "g": True}


def at(day: int, clock: str) -> str:
    hour, minute = clock.split(":")
    return (MONDAY + timedelta(days=day, hours=int(hour), minutes=int(minute))).isoformat()


def event(name: str, user_id: str, day: int, clock: str, **props: Any) -> dict[str, Any]:
    return {"name": name, "user_id": user_id, "ts": at(day, clock), "props": props}


def events() -> Iterator[dict[str, Any]]:
    for name, clock in (("A", "1:00"), ("A", "1:30"), ("B", "1:45"), ("C", "2:15")):
        yield event(name, "v", 0, clock)
    yield event("sign in", "r", 0, "20:00")
    yield event("work", "r", 1, "06:00")
    for index in range(10):
        yield event("join", f"m{index}", 0, "8:00")
        yield from [event("return", f"m{index}", 1, "9:00")] * (index < 5)
    for index in range(5):
        yield event("join", f"t{index}", 1, "8:00")
        yield from [event("return", f"t{index}", 2, "9:00")] * (index < 4)
    for user, value in VALUES.items():
        yield event("priced", user, 3, "12:00", v=value)
    yield event("priced", "e", 3, "12:00")


@pytest.fixture(scope="module")
def asked(stack: Stack) -> Account:
    account = new_account(stack)
    sent = {"project_id": account.project_id, "events": [*events()]}
    response = over_rest(stack, RPCS["EventService.IngestEvents"], sent, machine(account)).response
    assert response.accepted == len(sent["events"])
    until_it_answers(stack, account)
    return account


def ask(stack: Stack, account: Account, kind: str, **fields: Any) -> Any:
    """The answer over REST, which is that over gRPC too."""
    rpc = RPCS[f"AnalysisService.{kind}"]
    outcome = over_rest(stack, rpc, {"project_id": account.project_id, **fields}, person(account))
    assert outcome.failure is None, outcome.failure
    request = rpc.request(project_id=account.project_id)
    merge_fields(request, fields)
    other = over_native_grpc(stack, rpc, request, machine(account)).response
    assert outcome.response.HasField("complete_through")
    outcome.response.ClearField("complete_through")
    other.ClearField("complete_through")
    assert other == outcome.response
    return outcome.response


STEPS = [{"selector": {"names": [name]}} for name in "ABC"]


@pytest.mark.parametrize(("preset", "counts"), [("MIXPANEL", [1, 1, 0]), ("POSTHOG", [1, 1, 1])])
def test_a_preset_says_from_which_start_a_person_goes_on(
    stack: Stack, asked: Account, preset: str, counts: list[int]
) -> None:
    answer = ask(stack, asked, "QueryFunnel", range=WEEK, steps=STEPS, within="1h", preset=preset)
    assert [step.count for step in answer.steps] == counts
    assert [step.of_first for step in answer.steps] == counts


def test_a_funnel_tells_how_long_it_took(stack: Stack, asked: Account) -> None:
    answer = ask(stack, asked, "QueryFunnel", range={"last": "30d"}, steps=STEPS, within="1h")
    assert [step.median_seconds for step in answer.steps] == [0, 900, 1800]
    assert not answer.steps[0].HasField("median_seconds")
    assert answer.steps[2].median_seconds_from_first == 2700
    assert list(answer.time_to_convert.counts) == [1]


@pytest.mark.parametrize(
    ("fields", "returned"),
    [
        ({}, [0, 1, 0]),
        ({"alignment": "ROLLING"}, [1, 0, 0]),
        ({"preset": "POSTHOG"}, [0, 1, 0]),
        # Amplitude and Mixpanel count whoever returns in a period or later.
        ({"preset": "AMPLITUDE"}, [1, 0, 0]),
        ({"preset": "MIXPANEL", "counting": "ON"}, [1, 0, 0]),
        ({"alignment": "RETENTION_ALIGNMENT_ROLLING", "counting": "ON_OR_BEFORE"}, [1, 1, 1]),
    ],
)
def test_monday_evening_to_tuesday_morning_is_a_day_by_the_calendar_alone(
    stack: Stack, asked: Account, fields: dict[str, Any], returned: list[int]
) -> None:
    question = {"range": WEEK, "start": {"names": ["sign in"]}, "return": {"names": ["work"]}, "periods": 2}
    answer = ask(stack, asked, "QueryRetention", **question, **fields)
    assert (answer.cohorts[0].size, list(answer.cohorts[0].returned)) == (1, returned)


@pytest.mark.parametrize(("mean", "share"), [({}, 0.6), ({"mean": "POOLED"}, 0.6), ({"mean": "SIMPLE"}, 0.65)])
def test_the_mean_of_cohorts_is_pooled_or_simple(
    stack: Stack, asked: Account, mean: dict[str, str], share: float
) -> None:
    question = {"range": WEEK, "start": {"names": ["join"]}, "return": {"names": ["return"]}, "unit": "DAY"}
    answer = ask(stack, asked, "QueryRetention", **question, **mean, brackets=[[1, 1], [2, 3]])
    assert [(cohort.size, list(cohort.returned)) for cohort in answer.cohorts[:2]] == [(10, [5, 0]), (5, [4, 0])]
    assert list(answer.mean) == pytest.approx([share, 0])


@pytest.mark.parametrize(
    ("condition", "people"),
    [
        ({"operator": "EQUALS", "values": ["5"]}, "a"),
        ({"operator": "EQUALS", "values": [5]}, "bcf"),
        ({"operator": "EQUALS", "values": [5, "5", True]}, "abcfg"),
        ({"operator": "NOT_EQUALS", "values": [5]}, "afg"),
        ({"operator": "NOT_EQUALS", "values": ["5", 5]}, "fg"),
        ({"operator": "IS_SET"}, "abcfg"),
        ({"operator": "IS_NOT_SET"}, "de"),
        ({"operator": "GREATER", "values": [4]}, "bcf"),
        ({"operator": "CONDITION_OPERATOR_BETWEEN", "values": [5, 5]}, "bcf"),
        ({"operator": "MATCHES", "values": ["^[0-9x]$"]}, "af"),
    ],
)
def test_a_text_is_no_number_and_what_is_missing_matches_is_not_set_alone(
    stack: Stack, asked: Account, condition: dict[str, Any], people: str
) -> None:
    found = behind(stack, asked, {"condition": {"property": "props.v", **condition}})
    assert found == people
    others = behind(stack, asked, {"not": {"condition": {"property": "props.v", **condition}}})
    assert sorted(found + others) == list("abcdefg")


def test_filters_stand_in_each_other(stack: Stack, asked: Account) -> None:
    is_set = {"condition": {"property": "props.v", "operator": "IS_SET"}}
    is_a = {"condition": {"property": "user_id", "operator": "EQUALS", "values": ["a"]}}
    is_text = {"condition": {"property": "props.v", "operator": "STARTS_WITH", "values": ["5", "x"]}}
    assert behind(stack, asked, {"all_of": [is_set, {"not": {"any_of": [is_a, {"all_of": [is_text]}]}}]}) == "bcg"


def behind(stack: Stack, account: Account, given: dict[str, Any]) -> str:
    """The people of the events for which a filter holds."""
    trend = {"range": {"last": "30d"}, "series": [{"selector": {"names": ["priced"], "filter": given}}]}
    answer = ask(stack, account, "ListPeopleBehind", trend=trend, trend_cell={"series": 0})
    return "".join(sorted(person.id for person in answer.people))


def test_a_trend_has_every_bucket_and_its_people_are_those_of_the_range(stack: Stack, asked: Account) -> None:
    answer = ask(
        stack,
        asked,
        "QueryTrend",
        range=WEEK,
        timezone="Europe/Berlin",
        bucket="1w",
        series=[
            {"selector": {"names": ["join", "return"], "label": "Seen"}, "measure": "PEOPLE"},
            {"selector": {"names": ["priced"]}, "measure": "SUM", "property": "props.v"},
            {"selector": {"names": ["nothing"]}, "measure": "AVERAGE", "property": "props.v"},
        ],
        formulas=[{"expression": "A / B * 100", "label": "Of B"}, {"expression": "A / C"}],
        compare_to={"shift": "1w"},
    )
    assert [line.label for line in answer.series] == ["Seen", "priced", "nothing", "Of B", "A / C"]
    # Weeks begin on Monday in Berlin, an hour or two before those of UTC: the range lies in two of them.
    assert [[point.value for point in line.points] for line in answer.series[:2]] == [[15, 0], [10, 0]]
    assert [line.total for line in answer.series] == [15, 10, 0, 150, 0]
    assert [line.HasField("total") for line in answer.series] == [True, True, False, True, False]
    assert [line.ignored for line in answer.series] == [0, 3, 0, 0, 0]
    assert [line.total for line in answer.compared] == [0, 0, 0, 0, 0]


def test_values_of_a_breakdown_are_shown_as_text(stack: Stack, asked: Account) -> None:
    answer = ask(
        stack,
        asked,
        "QueryTrend",
        range=WEEK,
        series=[{"selector": {"names": ["priced"]}}],
        breakdowns=["props.v"],
        breakdown_limit=3,
    )
    lines = [(line.breakdown[0], line.total, list(line.unset), line.is_other) for line in answer.series]
    # 5, 5.0 and "5" are one, null is as missing; of the rest the first by its bytes is told apart.
    assert lines == [("5", 3, [], False), ("unset", 2, [0], False), ('[5,"x"]', 1, [], False), ("other", 1, [], True)]


def test_paths_lead_to_where_people_go_and_end_where_they_do(stack: Stack, asked: Account) -> None:
    answer = ask(stack, asked, "QueryPaths", range=WEEK, anchor={"names": ["A"]}, steps=2, within="2h")
    edges = [(edge.step, getattr(edge, "from"), edge.to, edge.people, edge.paths) for edge in answer.edges]
    # Both events begin a path, and the second one is a repeat in the first.
    assert edges == [(1, "A", "B", 1, 2), (2, "B", "C", 1, 2)]
    assert [(end.step, end.paths) for end in answer.ends] == [(0, 0), (1, 0), (2, 2)]
    before = ask(stack, asked, "QueryPaths", range=WEEK, anchor={"names": ["C"]}, direction="BEFORE", steps=1)
    assert [(getattr(edge, "from"), edge.to) for edge in before.edges] == [("C", "B")]


def test_the_catalog_waits_for_a_position_too(stack: Stack, asked: Account) -> None:
    rpc = RPCS["AnalysisService.ListEventNames"]
    body = encoded(rpc, {"project_id": asked.project_id, "min_position": 10**6})
    headers = tuple(machine(asked)("POST", rpc.wire, body).items())
    with grpc.insecure_channel(stack.grpc_target) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(rpc.wire)(body, timeout=0.5, metadata=headers)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_catalog_says_what_there_is(stack: Stack, asked: Account) -> None:
    names = ask(stack, asked, "ListEventNames", min_position=1).names
    assert {info.name: info.events for info in names}["join"] == 15
    properties = ask(stack, asked, "ListProperties", name=["priced"]).properties
    assert [(info.property, info.events, [*info.types]) for info in properties] == [
        ("props.v", 5, ["boolean", "list", "number", "text"])
    ]
    values = ask(stack, asked, "ListPropertyValues", property="props.v").values
    assert [(info.value, info.events) for info in values] == [("5", 3), ('[5,"x"]', 1), ("true", 1)]

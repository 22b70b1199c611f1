"""What each rule of retention means, by example; what presets fill in; and what is refused."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from google.protobuf.json_format import ParseDict
from oracle.source import make_src

from nimbus.v1.people_pb2 import RetentionCell
from nimbus.v1.retention_pb2 import QueryRetentionRequest, QueryRetentionResponse
from nimbus_server.analyses.question import Asked, AsOf
from nimbus_server.analyses.retention.answer import Retention, read
from nimbus_server.clock import micros
from nimbus_server.errors import NimbusError, Reason

LATER = datetime(2030, 1, 1, tzinfo=UTC)
WEEK = {"start": "2025-06-02T00:00:00Z", "end": "2025-06-09T00:00:00Z"}  # from a Monday


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connected:
        yield connected


def question(request: dict[str, Any], at: datetime = LATER) -> Retention:
    return read(ParseDict(request, QueryRetentionRequest()), Asked(at, "UTC"))


def ask(
    connection: duckdb.DuckDBPyConnection, log: list[tuple[str, str, str]], at: datetime = LATER, **request: Any
) -> QueryRetentionResponse:
    """The answer from a log of (person, name, time)."""
    asked = question({"range": WEEK, "start": {"names": ["a"]}, "return": {"names": ["a"]}, **request}, at)
    events = [
        {"seq": seq, "t": micros(datetime.fromisoformat(ts)), "name": name, "user_id": person, "anonymous_id": None}
        for seq, (person, name, ts) in enumerate(log, 1)
    ]
    make_src(connection, events, asked.needs.properties)
    return asked.answer(lambda sql: connection.execute(sql).fetchall(), AsOf(1, at))


MONDAY_AND_TUESDAY = [("u", "a", "2025-06-02T20:00Z"), ("u", "a", "2025-06-03T06:00Z")]


def test_monday_evening_to_tuesday_morning_is_day_1_by_the_calendar(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, MONDAY_AND_TUESDAY, periods=2)
    assert list(answer.cohorts[0].returned) == [0, 1, 0]


def test_monday_evening_to_tuesday_morning_is_day_0_by_rolling_days(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, MONDAY_AND_TUESDAY, periods=2, alignment="RETENTION_ALIGNMENT_ROLLING")
    assert list(answer.cohorts[0].returned) == [1, 0, 0]


@pytest.mark.parametrize(("mean", "share"), [("POOLED", 0.6), ("SIMPLE", 0.65)])
def test_the_mean_of_500_of_1000_and_400_of_500(connection: duckdb.DuckDBPyConnection, mean: str, share: float) -> None:
    asked = question({"range": WEEK, "return": {"names": ["r"]}, "mean": f"RETENTION_MEAN_{mean}", "periods": 1})
    make_src(connection, [])
    monday, day = micros(datetime.fromisoformat(WEEK["start"])), 86_400_000_000
    for start, size, returned in ((monday, 1000, 500), (monday + day, 500, 400)):
        for name, count, t in (("s", size, start), ("r", returned, start + day)):
            people = f"SELECT {start} + range AS uid, {t} AS t, 1 AS seq, '{name}' AS name FROM range({count})"
            connection.execute(f"INSERT INTO src BY NAME {people}")
    answer = asked.answer(lambda sql: connection.execute(sql).fetchall(), AsOf(1, LATER))
    assert [(cohort.size, *cohort.returned) for cohort in answer.cohorts[:2]] == [(1000, 0, 500), (500, 0, 400)]
    assert answer.mean[1] == pytest.approx(share)


def test_the_mean_leaves_out_cohorts_whose_period_is_not_complete(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("u", "a", "2025-06-02T10:00Z"), ("u", "a", "2025-06-03T10:00Z"), ("v", "a", "2025-06-03T10:00Z")]
    answer = ask(connection, log, datetime(2025, 6, 4, tzinfo=UTC), periods=2)
    assert [list(cohort.complete) for cohort in answer.cohorts[:3]] == [
        [True, True, False],
        [True, False, False],
        [False, False, False],
    ]
    assert list(answer.mean) == [0, 1, -1]


def test_the_start_event_is_no_return_and_a_tie_goes_by_position(connection: duckdb.DuckDBPyConnection) -> None:
    alone = ask(connection, [("u", "a", "2025-06-02T20:00Z")])
    assert (alone.cohorts[0].size, alone.cohorts[0].returned[0]) == (1, 0)
    tied = ask(connection, [("u", "a", "2025-06-02T20:00Z")] * 2)
    assert (tied.cohorts[0].size, tied.cohorts[0].returned[0]) == (1, 1)


def test_a_return_with_the_time_of_the_start_event_counts_where_its_position_is_later(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for names, returned in (("sr", 1), ("rs", 0)):
        log = [("u", name, "2025-06-02T20:00Z") for name in names]
        answer = ask(connection, log, start={"names": ["s"]}, **{"return": {"names": ["r"]}})
        assert answer.cohorts[0].returned[0] == returned


def test_a_day_of_23_hours_is_one_day(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("u", "a", "2025-03-29T23:30+01:00"), ("u", "a", "2025-03-31T00:10+02:00")]
    span = {"start": "2025-03-29T00:00:00+01:00", "end": "2025-03-30T00:00:00+01:00"}
    answer = ask(connection, log, range=span, timezone="Europe/Berlin", periods=2)
    assert list(answer.cohorts[0].returned) == [0, 0, 1]


def test_months_have_their_own_lengths_by_the_calendar_and_30_days_rolling(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    log = [("u", "a", "2025-02-25T12:00Z"), ("u", "a", "2025-03-03T12:00Z"), ("u", "a", "2025-03-28T12:00Z")]
    asked = {"range": {"start": "2025-02-01T00:00:00Z", "end": "2025-03-01T00:00:00Z"}, "unit": "RETENTION_UNIT_MONTH"}
    calendar = ask(connection, log, **asked, periods=1)
    assert list(calendar.cohorts[0].returned) == [0, 1]
    rolling = ask(connection, log, **asked, periods=1, alignment="RETENTION_ALIGNMENT_ROLLING")
    assert list(rolling.cohorts[0].returned) == [1, 1]


def test_first_ever_leaves_out_who_started_before_the_range(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("old", "a", "2025-05-01T10:00Z"), ("old", "a", "2025-06-02T10:00Z"), ("new", "a", "2025-06-02T10:00Z")]
    assert ask(connection, log).cohorts[0].size == 2
    assert ask(connection, log, cohort_by="RETENTION_COHORT_BY_FIRST_EVER").cohorts[0].size == 1


def test_every_counts_a_person_in_each_unit_with_a_start_event(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("u", "a", f"2025-06-0{day}T10:00Z") for day in (2, 3, 5)]
    answer = ask(connection, log, cohort_by="RETENTION_COHORT_BY_EVERY", periods=3)
    assert [(cohort.size, *cohort.returned) for cohort in answer.cohorts[:4]] == [
        (1, 0, 1, 0, 1),
        (1, 0, 0, 1, 0),
        (0, 0, 0, 0, 0),
        (1, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("counting", "returned"), [("ON", [0, 1, 0, 1]), ("ON_OR_AFTER", [1, 1, 1, 1]), ("ON_OR_BEFORE", [0, 1, 1, 1])]
)
def test_which_returns_count_for_a_period(
    connection: duckdb.DuckDBPyConnection, counting: str, returned: list[int]
) -> None:
    log = [("u", "a", f"2025-06-{day}T10:00Z") for day in ("02", "03", "05", "20")]
    answer = ask(connection, log, counting=f"RETENTION_COUNTING_{counting}", periods=3)
    assert list(answer.cohorts[0].returned) == returned


def test_a_return_after_the_last_period_counts_on_or_after_it(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("u", "a", "2025-06-02T10:00Z"), ("u", "a", "2026-06-02T10:00Z")]
    for alignment in ("CALENDAR", "ROLLING"):
        asked = {"alignment": f"RETENTION_ALIGNMENT_{alignment}", "counting": "RETENTION_COUNTING_ON_OR_AFTER"}
        assert list(ask(connection, log, **asked, periods=2).cohorts[0].returned) == [1, 1, 1]


def test_a_return_in_any_period_of_a_bracket_counts_once(connection: duckdb.DuckDBPyConnection) -> None:
    log = [("u", "a", f"2025-06-0{day}T10:00Z") for day in (2, 4, 5, 7)]
    brackets = [{"first": 1, "last": 1}, {"first": 2, "last": 3}, {"first": 4, "last": 7}]
    answer = ask(connection, log, brackets=brackets)
    assert list(answer.cohorts[0].returned) == [0, 1, 1]


def test_a_measure_is_of_the_returning_events_of_a_cell(connection: duckdb.DuckDBPyConnection) -> None:
    log = [*MONDAY_AND_TUESDAY, ("u", "a", "2025-06-03T07:00Z"), ("v", "a", "2025-06-02T20:00Z")]
    answer = ask(connection, log, measure="TREND_MEASURE_EVENTS", periods=1)
    assert list(answer.cohorts[0].values) == [0, 2]
    assert list(answer.cohorts[0].returned) == [0, 1]
    # Over seven cohorts, six of which have nobody.
    assert list(answer.mean) == [0, pytest.approx(2 / 7)]
    missing = ask(connection, log, measure="TREND_MEASURE_MEDIAN", property="props.n", periods=1)
    assert all(math.isnan(value) for value in [*missing.cohorts[0].values, *missing.mean])


def test_events_of_nobody_are_in_no_cohort(connection: duckdb.DuckDBPyConnection) -> None:
    log: list[Any] = [(None, "a", "2025-06-02T20:00Z"), (None, "a", "2025-06-03T20:00Z")]
    assert {cohort.size for cohort in ask(connection, log).cohorts} == {0}


def test_cohorts_are_the_units_of_the_range_empty_ones_too(connection: duckdb.DuckDBPyConnection) -> None:
    answer = ask(connection, [], range={"start": "2025-06-02T12:00:00Z", "end": "2025-06-04T12:00:00Z"})
    starts = [cohort.start.ToJsonString() for cohort in answer.cohorts]
    assert starts == ["2025-06-02T00:00:00Z", "2025-06-03T00:00:00Z", "2025-06-04T00:00:00Z"]
    assert list(answer.mean) == [-1] * 8


@pytest.mark.parametrize(
    ("preset", "rules"),
    [
        ("UNSPECIFIED", ("FIRST_IN_RANGE", "CALENDAR", "ON", "POOLED", "MONDAY")),
        ("MIXPANEL", ("EVERY", "ROLLING", "ON_OR_AFTER", "POOLED", "MONDAY")),
        ("POSTHOG", ("EVERY", "CALENDAR", "ON", "POOLED", "SUNDAY")),
        ("AMPLITUDE", ("EVERY", "ROLLING", "ON_OR_AFTER", "POOLED", "MONDAY")),
    ],
)
def test_a_preset_fills_in_what_is_unset(preset: str, rules: tuple[str, ...]) -> None:
    fields = ("cohort_by", "alignment", "counting", "mean", "week_start")
    semantics = question({"range": WEEK, "preset": f"PRESET_{preset}"}).semantics
    assert tuple(semantics[field] for field in fields) == rules
    asked = {
        "cohort_by": "RETENTION_COHORT_BY_FIRST_EVER",
        "alignment": "RETENTION_ALIGNMENT_CALENDAR",
        "counting": "RETENTION_COUNTING_ON_OR_BEFORE",
        "mean": "RETENTION_MEAN_SIMPLE",
        "week_start": "WEEK_START_SATURDAY",
    }
    semantics = question({"range": WEEK, "preset": f"PRESET_{preset}", **asked}).semantics
    assert [semantics[field] for field in fields] == ["FIRST_EVER", "CALENDAR", "ON_OR_BEFORE", "SIMPLE", "SATURDAY"]


def test_the_semantics_say_what_was_in_force() -> None:
    asked = {"range": WEEK, "start": {"names": ["signup"]}, "preset": "PRESET_MIXPANEL"}
    assert question(asked).semantics == {
        "range": "2025-06-02T00:00:00Z/2025-06-09T00:00:00Z",
        "timezone": "UTC",
        "start": "signup",
        "return": "All events",
        "unit": "DAY",
        "periods": "7",
        "cohort_by": "EVERY",
        "alignment": "ROLLING",
        "counting": "ON_OR_AFTER",
        "mean": "POOLED",
        "week_start": "MONDAY",
    }
    # A return in any period of a bracket counts, whatever the preset.
    bracketed = question({**asked, "brackets": [{"first": 1, "last": 3}]}).semantics
    assert (bracketed["brackets"], bracketed["counting"], "periods" in bracketed) == ("1-3", "ON", False)


def test_no_more_events_are_read_than_can_count() -> None:
    asked = {"range": WEEK, "start": {"names": ["a"]}, "return": {"names": ["b"]}, "periods": 2}
    start, end = (micros(datetime.fromisoformat(WEEK[edge])) for edge in ("start", "end"))
    day = 86_400_000_000
    needs = question(asked).needs
    assert (needs.start, needs.end, needs.names) == (start, end + 2 * day, {"a", "b"})
    rolling = question({**asked, "alignment": "RETENTION_ALIGNMENT_ROLLING"}).needs
    assert (rolling.start, rolling.end) == (start, end + 3 * day)
    first_ever = question({**asked, "cohort_by": "RETENTION_COHORT_BY_FIRST_EVER"}).needs
    assert (first_ever.start, first_ever.end) == (None, end + 2 * day)
    after = question({**asked, "counting": "RETENTION_COUNTING_ON_OR_AFTER"}).needs
    assert (after.start, after.end) == (start, None)
    assert question({**asked, "return": {}}).needs.names is None
    measured = question({**asked, "measure": "TREND_MEASURE_SUM", "property": "props.n"}).needs
    assert [prop.path for prop in measured.properties] == ["props.n"]


FILTER_WITHOUT_OPERATOR = {"filter": {"condition": {"property": "props.n"}}}


@pytest.mark.parametrize(
    ("request_fields", "field", "reason"),
    [
        ({"range": {}}, "range", Reason.FIELD_REQUIRED),
        ({"range": {"last": "1001h"}, "unit": 1}, "range", Reason.FIELD_INVALID),
        ({"range": {"last": "10000d"}}, "range", Reason.FIELD_INVALID),
        ({"range": {"start": "9990-01-01T00:00:00Z", "end": "9990-02-01T00:00:00Z"}, "periods": 366, "unit": 4},
         "range.end", Reason.FIELD_INVALID),
        ({"timezone": "Mars/Olympus"}, "timezone", Reason.FIELD_INVALID),
        ({"preset": 9}, "preset", Reason.FIELD_INVALID),
        ({"unit": 9}, "unit", Reason.FIELD_INVALID),
        ({"cohort_by": 9}, "cohort_by", Reason.FIELD_INVALID),
        ({"alignment": 9}, "alignment", Reason.FIELD_INVALID),
        ({"counting": 9}, "counting", Reason.FIELD_INVALID),
        ({"mean": 9}, "mean", Reason.FIELD_INVALID),
        ({"week_start": 9}, "week_start", Reason.FIELD_INVALID),
        ({"measure": 99}, "measure", Reason.FIELD_INVALID),
        ({"start": FILTER_WITHOUT_OPERATOR}, "start.filter.condition.operator", Reason.FIELD_REQUIRED),
        ({"return": FILTER_WITHOUT_OPERATOR}, "return.filter.condition.operator", Reason.FIELD_REQUIRED),
        ({"periods": -1}, "periods", Reason.FIELD_INVALID),
        ({"periods": 367}, "periods", Reason.FIELD_INVALID),
        ({"periods": 3, "brackets": [{"first": 1, "last": 1}]}, "periods", Reason.FIELD_INVALID),
        ({"brackets": [{"first": -1, "last": 1}]}, "brackets[0].first", Reason.FIELD_INVALID),
        ({"brackets": [{"first": 1, "last": 367}]}, "brackets[0].last", Reason.FIELD_INVALID),
        ({"brackets": [{"first": 2, "last": 1}]}, "brackets[0].last", Reason.FIELD_INVALID),
        ({"brackets": [{"first": 1, "last": 2}, {"first": 2, "last": 3}]}, "brackets[1].first", Reason.FIELD_INVALID),
        ({"brackets": [{"first": day, "last": day} for day in range(101)]}, "brackets", Reason.FIELD_TOO_LONG),
        ({"brackets": [{"first": 1, "last": 1}], "counting": 2}, "counting", Reason.FIELD_INVALID),
        ({"measure": "TREND_MEASURE_SESSIONS"}, "measure", Reason.FIELD_INVALID),
        ({"measure": "TREND_MEASURE_SUM"}, "property", Reason.FIELD_REQUIRED),
        ({"measure": "TREND_MEASURE_SUM", "property": "plan"}, "property", Reason.FIELD_INVALID),
        ({"measure": "TREND_MEASURE_EVENTS", "property": "props.n"}, "property", Reason.FIELD_INVALID),
        ({"property": "props.n"}, "property", Reason.FIELD_INVALID),
        ({"measure": "TREND_MEASURE_EVENTS", "counting": 2}, "measure", Reason.FIELD_INVALID),
        ({"measure": "TREND_MEASURE_EVENTS", "preset": "PRESET_MIXPANEL"}, "measure", Reason.FIELD_INVALID),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(request_fields: dict[str, Any], field: str, reason: Reason) -> None:
    with pytest.raises(NimbusError) as caught:
        question({"range": WEEK, **request_fields})
    assert (caught.value.reason, [one.field for one in caught.value.violations]) == (reason, [field])
    assert caught.value.message.startswith(f"{field} ")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("cell", "field", "reason"),
    [
        ({}, "retention_cell.start", Reason.FIELD_REQUIRED),
        ({"start": "2025-06-02T00:00:00.000001Z"}, "retention_cell.start", Reason.FIELD_INVALID),
        ({"start": "2025-06-01T00:00:00Z"}, "retention_cell.start", Reason.FIELD_INVALID),
        # A unit of the periods, and of no cohort.
        ({"start": "2025-06-09T00:00:00Z"}, "retention_cell.start", Reason.FIELD_INVALID),
        ({"start": "2025-06-02T00:00:00Z", "period": -1}, "retention_cell.period", Reason.FIELD_INVALID),
        ({"start": "2025-06-02T00:00:00Z", "period": 8}, "retention_cell.period", Reason.FIELD_INVALID),
        ({"start": "2025-06-02T00:00:00Z", "dropped": True}, "retention_cell.period", Reason.FIELD_REQUIRED),
    ],
)
def test_a_cell_that_the_answer_does_not_have_is_refused(cell: dict[str, Any], field: str, reason: Reason) -> None:
    with pytest.raises(NimbusError) as caught:
        question({"range": WEEK}).people(ParseDict(cell, RetentionCell()))
    assert (caught.value.reason, [one.field for one in caught.value.violations]) == (reason, [field])


def test_the_longest_question_is_answered(connection: duckdb.DuckDBPyConnection) -> None:
    span = {"start": "2025-06-02T00:00:00+02:00", "end": "2028-02-27T00:00:00+01:00"}
    log = [("u", "a", "2025-06-02T10:00Z"), ("u", "a", "2026-02-06T10:00Z")]
    answer = ask(connection, log, range=span, timezone="Europe/Berlin", periods=249)
    assert len(answer.cohorts) == 1_000
    assert [period for period, returned in enumerate(answer.cohorts[0].returned) if returned] == [249]
    with pytest.raises(NimbusError, match=r"The answer has 251,000 cells") as caught:
        ask(connection, log, range=span, timezone="Europe/Berlin", periods=250)
    assert caught.value.reason == Reason.QUESTION_TOO_LARGE

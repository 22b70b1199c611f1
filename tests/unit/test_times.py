"""The forms of a time, by a plain model of them, one by one and many at once."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nimbus_server.clock import micros
from nimbus_server.times import read_plain_utc, read_time, read_utc

NOON = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)
# The same moment in every form.
FORMS = [
    "2025-11-01T12:00:00Z",
    "2025-11-01T12:00:00z",
    "2025-11-01t12:00:00Z",
    "2025-11-01 12:00:00",
    "2025-11-01T12:00:00",
    "2025-11-01T12:00",
    "2025-11-01T12:00Z",
    "2025-11-01T12:00:00.0Z",
    "2025-11-01T12:00:00.000000000Z",
    "2025-11-01T11:59:60Z",
    "2025-11-01T17:30:00+05:30",
    "2025-11-01T12:00:00-00:00",
    "2025-10-31T12:01:00-23:59",
]
NO_TIMES = [
    *("", "Z", "now", "2025", "2025-11-01", "2025-11-01T12", "2025-11-01T12Z", "2025-11-01T12:0", "25-11-01T12:00"),
    *("20251101T120000Z", "2025-W44-6T12:00:00Z", "2025-305T12:00:00Z", "2025-11-01T120000Z", "2025-11-01T12:00:00,5Z"),
    *("2025-11-01T24:00:00Z", "2025-11-01T12:60:00Z", "2025-11-01T12:00:61Z", "2025-11-01T12:00.5Z"),
    *("2025-11-01T12:00:00.Z", "2025-11-01T12:00:00.1234567890Z", "2025-11-01T12:00:00+0530", "2025-11-01T12:00:00+05"),
    *(
        "2025-11-01T12:00:00+05:30:00",
        "2025-11-01T12:00:00+24:00",
        "2025-11-01T12:00:00+05:60",
        "2025-11-01T12:00:00 Z",
    ),
    *(" 2025-11-01T12:00:00Z", "2025-11-01T12:00:00Z ", "2025-11-01T12:00:00Z\n", "2025-11-01_12:00:00Z"),
    *("\uff12025-11-01T12:00:00Z", "2025-11-01T12:00:00\u221205:00", "2025-02-30T12:00:00Z", "2025-00-01T12:00:00Z"),
    *(
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-2025-11-01T12:00:00Z",
        "9999-12-31T23:59:60Z",
        "2025-11-01T12:00:00ZZ",
    ),
]


@pytest.mark.parametrize("text", FORMS)
def test_each_form_is_the_same_moment(text: str) -> None:
    assert read_utc(text) == micros(NOON)


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_has_another_form_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of datetime too
        read_utc(text)
    assert read_plain_utc([text]) is None


def test_digits_beyond_microseconds_are_cut_off() -> None:
    assert read_utc("2025-11-01T12:00:00.1234569Z") == micros(NOON) + 123_456
    assert read_plain_utc(["2025-11-01T12:00:00.1234569Z"]) == [micros(NOON) + 123_456]


def test_a_leap_second_keeps_its_fraction_and_offset() -> None:
    assert read_utc("2025-11-01t17:29:60.25+05:30") == micros(NOON) + 250_000


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.5-00:01", "9999-12-31T23:59:60"])
def test_a_moment_outside_the_years_of_utc_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="9999"):
        read_time(text)


def test_without_an_offset_a_time_is_naive() -> None:
    assert read_time("2025-11-01T12:00") == NOON.replace(tzinfo=None)
    assert read_time("2025-11-01T12:00Z") == NOON


def model(text: str) -> int:
    """The same in another way. Raises ValueError."""
    date, hour, minute, second, fraction, zone = re.fullmatch(  # type: ignore[union-attr]
        r"(.{10})[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(.*)", text
    ).groups()
    start = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    seconds = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if zone not in {"", "Z", "z"}:
        seconds -= int(zone[0] + "1") * (int(zone[1:3]) * 3600 + int(zone[4:]) * 60)
    return micros(start) + seconds * 1_000_000 + int(((fraction or "") + "000000")[:6])


def two(most: int) -> st.SearchStrategy[str]:
    return st.integers(0, most).map(lambda n: f"{n:02}")


TIMES = st.builds(
    lambda date, mark, hour, minute, rest, zone: f"{date:%Y}-{date:%m}-{date:%d}{mark}{hour}:{minute}{rest}{zone}",
    st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    st.sampled_from("Tt "),
    two(23),
    two(59),
    st.just("") | st.builds(lambda s, f: f":{s}{f}", two(60), st.just("") | st.from_regex(r"\A\.[0-9]{1,9}\Z")),
    st.sampled_from(["", "Z", "z"])
    | st.builds(lambda sign, h, m: f"{sign}{h}:{m}", st.sampled_from("+-"), two(23), two(59)),
)


@given(TIMES)
def test_a_time_is_what_the_model_says(text: str) -> None:
    assert read_utc(text) == model(text)


# One character that should not be there, or not in that place.
NEARLY = st.builds(
    lambda text, place, char: text[: place % len(text)] + char + text[place % len(text) + 1 :],
    TIMES | st.sampled_from(FORMS),
    st.integers(0, 40),
    st.sampled_from("0369+-:.,TWZ \n\uff12") | st.just(""),
)
GRAMMAR = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


@given(NEARLY)
def test_what_is_nearly_a_time_is_read_by_the_grammar_or_refused(text: str) -> None:
    try:
        read = read_utc(text)
    except ValueError:
        assert read_plain_utc([text]) is None
    else:
        assert GRAMMAR.fullmatch(text)
        assert read == model(text)


@given(st.lists(TIMES | NEARLY | st.sampled_from(FORMS + NO_TIMES) | st.none() | st.integers(), max_size=3))
@example([{str(n): n for n in range(30)}])
@example(["2025-11-01T12:00:00Z\n2025-11-01T12:00:00Z"])
@example(["2025-11-01T12:00:00Z", "2025-11-01T24:00:00Z"])
@example(["2025-11-01T12:00:00+05:75"])
@example(["2025+11+01T12:00:00Z"])
@example(["0001-01-01T00:00:00+23:59"])
def test_many_at_once_are_each_as_it_is_alone(texts: list[Any]) -> None:
    together = read_plain_utc(texts)
    assert together is None or together == [read_utc(text) for text in texts]


@given(st.lists(st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)), min_size=1))  # noqa: DTZ001
def test_times_of_the_common_form_are_read_at_once(moments: list[datetime]) -> None:
    for zone in ("Z", "+00:00"):
        texts = [f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06}{zone}" for at in moments]
        assert read_plain_utc(texts) == [micros(at) for at in moments]

"""Formulas of trends: what they compute, and which texts are none."""

import pytest

from nimbus_server.analyses.trend.formula import DEPTH_MAX, LENGTH_MAX, FormulaError, parse_formula


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", 6),
        ("A / B * 100", 300),
        ("A - B - 1", 3),
        ("A / B / 3", 1),
        ("A - (B - 1)", 5),
        ("1 + 2 * A", 13),
        ("(1 + 2) * A", 18),
        ("-A + B", -4),
        ("--A", 6),
        ("A * -B", -12),
        ("0.5*A", 3),
        ("  A+B ", 8),
        ("7", 7),
    ],
)
def test_a_formula_follows_the_rules_of_arithmetic(text: str, expected: float) -> None:
    assert parse_formula(text, 2).value([6, 2]) == expected


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("A / B", [1, 0]),
        ("A / B", [0, 0]),
        ("A / (B - B)", [1, 5]),
        ("A + B", [1, None]),
        ("A * 0", [None, 1]),
        ("A * B", [1e300, 1e300]),
        ("A * B - A * B", [1e300, 1e300]),
    ],
)
def test_a_result_that_is_no_number_is_missing(text: str, numbers: list[float | None]) -> None:
    assert parse_formula(text, 2).value(numbers) is None


def test_a_formula_does_not_ask_for_series_that_it_does_not_name() -> None:
    assert parse_formula("B", 2).value([None, 3]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at its end"),
        ("   ", "at its end"),
        ("A +", "at its end"),
        ("A B", "operator or its end at `B`"),
        ("A 1", "operator or its end at `1`"),
        ("+A", "at `+`"),
        ("* A", "at `*`"),
        ("(A", "close each"),
        ("A)", "operator or its end at `)`"),
        ("()", "at `)`"),
        ("C", "names series C, but the last one is B"),
        ("a", "it has `a`"),
        ("A ** 2", "at `*`"),
        ("A ^ 2", "it has `^`"),
        ("1.", "it has `.`"),
        ("A\x00", "it has"),
        ("AB", "operator or its end at `B`"),
        ("__import__('os')", "it has `_`"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "it has"),
    ],
)
def test_what_is_no_formula_is_refused_with_where_it_goes_wrong(text: str, message: str) -> None:
    with pytest.raises(FormulaError, match=r".") as caught:
        parse_formula(text, 2)
    assert message in str(caught.value)


def test_length_and_depth_are_bounded() -> None:
    deep = "(" * DEPTH_MAX + "A" + ")" * DEPTH_MAX
    assert parse_formula(deep, 1).value([1]) == 1
    with pytest.raises(FormulaError, match="within each other"):
        parse_formula(f"({deep})", 1)
    longest = "-" * (LENGTH_MAX - 1) + "A"
    assert parse_formula(longest, 1).value([1]) == -1
    with pytest.raises(FormulaError, match="200 characters"):
        parse_formula("-" + longest, 1)

"""Formulas of trends: arithmetic over the numbers of series, such as `A / B * 100`."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

LENGTH_MAX = 200
DEPTH_MAX = 20

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<series>[A-Z])|(?P<sign>[-+*/()]))")
_SIGNS = "+-*/()"
_NEGATE = "negate"


class FormulaError(ValueError):
    """The text is no formula. The message is the rest of a sentence that starts with the name of its field."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula in postfix order: numbers as floats, series by index, operators as texts."""

    steps: tuple[float | int | str, ...]

    def value(self, series: Sequence[float | None]) -> float | None:
        """The result for these numbers of the series, None for a missing one.

        It is missing where a number of the formula is, after a division by zero, and beyond the range of a double.
        """
        stack: list[float] = []
        for step in self.steps:
            if isinstance(step, float):
                stack.append(step)
            elif isinstance(step, int):
                number = series[step]
                if number is None:
                    return None
                stack.append(number)
            elif step == _NEGATE:
                stack.append(-stack.pop())
            else:
                right, left = stack.pop(), stack.pop()
                if step == "/" and right == 0:
                    return None
                stack.append(_apply(step, left, right))
        return stack[0] if math.isfinite(stack[0]) else None


def parse_formula(text: str, series_count: int) -> Formula:
    """The formula that the text says, over `series_count` series. Raises FormulaError."""
    if len(text) > LENGTH_MAX:
        raise FormulaError(f"must have at most {LENGTH_MAX} characters.")
    return Formula(_Parser(text, series_count).parse())


def _apply(operator: str, left: float, right: float) -> float:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right


class _Parser:
    """Recursive descent: `sum = product {(+|-) product}`, `product = factor {(*|/) factor}`, `factor = {-} atom`."""

    def __init__(self, text: str, series_count: int) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._series_count = series_count
        self._steps: list[float | int | str] = []

    def parse(self) -> tuple[float | int | str, ...]:
        self._sum(0)
        if self._next() is not None:
            raise FormulaError(f"must have an operator or its end at `{self._next()}`.")
        return tuple(self._steps)

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *wanted: str) -> str | None:
        token = self._next()
        if token not in wanted:
            return None
        self._at += 1
        return token

    def _sum(self, depth: int) -> None:
        self._product(depth)
        while operator := self._take("+", "-"):
            self._product(depth)
            self._steps.append(operator)

    def _product(self, depth: int) -> None:
        self._factor(depth)
        while operator := self._take("*", "/"):
            self._factor(depth)
            self._steps.append(operator)

    def _factor(self, depth: int) -> None:
        negative = False
        while self._take("-"):
            negative = not negative
        self._atom(depth)
        if negative:
            self._steps.append(_NEGATE)

    def _atom(self, depth: int) -> None:
        if self._take("("):
            if depth == DEPTH_MAX:
                raise FormulaError(f"must have at most {DEPTH_MAX} parentheses within each other.")
            self._sum(depth + 1)
            if not self._take(")"):
                raise FormulaError("must close each parenthesis that it opens.")
            return
        token = self._next()
        if token is None or token in _SIGNS:
            raise FormulaError(f"must have a number or a series {f'at `{token}`' if token else 'at its end'}.")
        self._at += 1
        if not token.isalpha():
            self._steps.append(float(token))
            return
        index = ord(token) - ord("A")
        if index >= self._series_count:
            raise FormulaError(f"names series {token}, but the last one is {chr(ord('A') + self._series_count - 1)}.")
        self._steps.append(index)


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise FormulaError(
                f"must consist of numbers, series A to Z, + - * / and parentheses; it has `{text[at:].lstrip()[:1]}`."
            )
        tokens.append(found[0].lstrip())
        at = found.end()
    return tokens

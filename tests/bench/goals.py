"""A figure beside its reference and its goal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from nimbus_server.bench.load import Result
from nimbus_server.bench.report import milliseconds


@dataclass(frozen=True, slots=True)
class Measure:
    """What is read off a result, and how it is shown: `words` around a number."""

    of: Callable[[Result], float]
    number: Callable[[float], str]
    words: str

    def median(self, results: Sequence[Result]) -> float:
        """The middle of the values."""
        return median(map(self.of, results))

    def text(self, results: Sequence[Result]) -> str:
        """Median, least and most."""
        values = [self.of(result) for result in results]
        middle, least, most = (self.number(value) for value in (median(values), min(values), max(values)))
        return f"{self.words.format(middle)} ({least} to {most})"


RATE = Measure(lambda result: result.events_per_second, lambda value: f"{value:,.0f}", "{}/s")
P50 = Measure(lambda result: result.percentile(50), milliseconds, "p50 {} ms")
P99 = Measure(lambda result: result.percentile(99), milliseconds, "p99 {} ms")


@dataclass(slots=True)
class Figure:
    """A row of the table; `goals` are words and whether it is so."""

    what: str
    reference: str
    result: str
    ratio: float
    goals: list[tuple[str, bool]] = field(default_factory=list)

    def expect(self, goal: str, met: bool) -> None:
        """Add a goal."""
        self.goals.append((goal, met))

    @property
    def row(self) -> tuple[str, ...]:
        """As it is printed."""
        missed = [goal for goal, met in self.goals if not met]
        return (
            self.what,
            self.reference,
            self.result,
            f"{self.ratio:.2f}",
            ", ".join(goal for goal, _ in self.goals),
            f"no: {', '.join(missed)}" if missed else "yes",
        )


def compare(
    what: str, measure: Measure, reference_name: str, references: Sequence[Result], results: Sequence[Result]
) -> Figure:
    """A figure without goals yet; calls that failed are a goal missed."""
    value, reference = measure.median(results), measure.median(references)
    figure = Figure(
        what,
        f"{reference_name}: {measure.text(references)}",
        measure.text(results),
        value / reference if reference else 0.0,
    )
    failed = sum(sum(result.errors.values()) for result in (*references, *results))
    if failed:
        figure.expect(f"no call failed (here {failed})", met=False)
    return figure

"""SQL: the attempts that a funnel counts.

Events are in order of their key, which is `t << 64 | seq`. An attempt is a row: `u` is the person or the session, `k1`
the key of its start, and `k2` to `kn` those of the events of the other steps, NULL where a step is not done.

This is what a funnel means, for all that can be asked. most.py computes the same faster, for most people of most
funnels.
"""

from nimbus_server.analyses.funnel.plan import ENTRY_FIRST, SESSIONS, STRICT, TOTALS, UNORDERED, Plan

# 30 minutes without an event end a session.
SESSION_GAP = 1_800_000_000

_KEY = f"(t::HUGEINT * {2**64} + seq)"
_BY_PERSON = "(PARTITION BY u ORDER BY t, seq)"
# Above all keys: ranks attempts by how far they get, and then by their start.
_FURTHER = 2**120


def events(plan: Plan) -> str:
    """`events`: those of steps (`m1`, ...) and of exclusions (`o0`, ...), with what is compared and told apart."""
    set_too = "".join(f" AND {prop.is_set()}" for prop in plan.held)
    flags = {f"m{number}": step.predicate + set_too for number, step in zip(plan.numbers, plan.steps, strict=True)}
    flags |= {f"o{index}": exclusion.selector.predicate for index, exclusion in enumerate(plan.exclusions)}
    values = {f"h{index}": prop.text() for index, prop in enumerate(plan.held)}
    if plan.breakdown:
        values["b"] = plan.breakdown.measured.text()
    selected = "".join(f", {value} AS {name}" for name, value in {**flags, **values}.items())
    table = f"(SELECT uid AS u, t, seq{selected} FROM src WHERE uid IS NOT NULL)"
    # What lies between the events of steps matters to these, so they are found among all.
    if plan.order == STRICT:
        table = f"(SELECT *, row_number() OVER {_BY_PERSON} AS n FROM {table})"
    if plan.counting == SESSIONS:
        opens = f"CASE WHEN (t - lag(t) OVER {_BY_PERSON} <= {SESSION_GAP}) IS NOT TRUE THEN seq END AS opens"
        session = f"last_value(opens IGNORE NULLS) OVER {_BY_PERSON} AS u"
        table = f"(SELECT * EXCLUDE (opens) REPLACE ({session}) FROM (SELECT *, {opens} FROM {table}))"
    return f"events AS MATERIALIZED (SELECT * FROM {table} WHERE {' OR '.join(flags)})"


def attempts(plan: Plan, among: str = "") -> list[str]:
    """Common table expressions (WITH RECURSIVE); the last one, `counted`, has the attempts that count.

    They read the table `events`; `among` is a condition on it, which leaves out people.
    """
    chain = _Chain(plan)
    if plan.order == STRICT:
        chain.take_next()
    elif plan.order == UNORDERED:
        chain.take_all()
    else:
        chain.take_in_order()
    events = f"e AS MATERIALIZED (SELECT *, {_KEY} AS k FROM events{among})"
    return [events, *chain.tables, *_counted(plan, chain.last)]


class _Chain:
    """The attempts of all starts, in tables each of which has one more column than the one before."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._held = [f"h{index}" for index in range(len(plan.held))]
        start = "m1" if plan.order != UNORDERED else " OR ".join(f"m{number}" for number in plan.numbers)
        columns = ["u", "k AS k1", f"(((k >> 64) + {plan.within + 1}) << 64) AS closes", *self._held]
        starts = f"({start}) AND k < {plan.range.end << 64}"
        if plan.entry == ENTRY_FIRST and plan.counting != TOTALS:
            starts += f" AND (u, k) IN (SELECT (u, min(k)) FROM e WHERE {starts} GROUP BY u)"
        if plan.order == STRICT:
            columns.append("n")
        self.last = "f"
        self.tables = [f"f AS MATERIALIZED (SELECT {', '.join(columns)} FROM e WHERE {starts})"]

    def take_next(self) -> None:
        """Take each step at the very next event of the person."""
        for number in self._plan.numbers[1:]:
            self._add(
                f"SELECT p.*, CASE WHEN p.k{number - 1} IS NOT NULL AND e.k < p.closes THEN e.k END AS k{number}"
                f" FROM {self.last} p LEFT JOIN e"
                f" ON e.u = p.u AND e.n = p.n + {number - 1} AND e.m{number}{self._same()}"
            )

    def take_all(self) -> None:
        """Take each step at its first event from the start on, and number them as they come."""
        taken: list[str] = []
        for number in self._plan.numbers:
            self._take(f"s{number}", f"m{number}", ">= p.k1", taken)
            taken.append(f"s{number}")
        keys = ", ".join(f"l[{number}] AS k{number}" for number in self._plan.numbers)
        self._add(
            f"SELECT u, closes, {keys} FROM"
            f" (SELECT u, closes, list_sort([{', '.join(taken)}], 'ASC', 'NULLS LAST') AS l FROM {self.last})"
        )

    def take_in_order(self) -> None:
        """Take each step at its first event after the step before, and the optional one where there is one."""
        plan = self._plan
        self._watch(1)
        for number in plan.required[1:]:
            before = plan.before(number)
            taken = [f"k{other}" for other in plan.required if other < number]
            self._take(f"k{number}", f"m{number}", self._after(before), taken, self._stops(number))
            self._watch(number)
        if plan.optional:
            self._take_optional()

    def _take_optional(self) -> None:
        plan, number = self._plan, self._plan.optional
        taken = [f"k{other}" for other in plan.required]
        self._take(f"k{number}", f"m{number}", self._after(number - 1), taken, self._stops(number))
        following = f"k{number + 1}" if not plan.tie else f"((((k{number + 1} >> 64) + {plan.tie + 1}) << 64))"
        self._add(
            f"SELECT * REPLACE (CASE WHEN (k{number} < {following}) IS NOT FALSE THEN k{number} END AS k{number})"
            f" FROM {self.last}"
        )

    def _watch(self, number: int) -> None:
        """Find the first event of each exclusion that a step begins: `x0`, `x1` and so on."""
        for index, exclusion in enumerate(self._plan.exclusions):
            if exclusion.from_step == number:
                self._take(f"x{index}", f"o{index}", f"> p.k{number}", [], is_step=False)

    def _stops(self, number: int) -> list[str]:
        """The exclusions that a step must not come after."""
        if self._plan.is_dropped:
            return []
        return [
            f"x{index}"
            for index, exclusion in enumerate(self._plan.exclusions)
            if exclusion.from_step < number <= exclusion.to_step
        ]

    def _after(self, number: int) -> str:
        if not self._plan.tie:
            return f"> p.k{number}"
        return f">= (((p.k{number} >> 64) - {self._plan.tie}) << 64)"

    def _take(
        self,
        column: str,
        matches: str,
        after: str,
        taken: list[str],
        stops: list[str] | None = None,
        *,
        is_step: bool = True,
    ) -> None:
        """Add a column with the first event that matches, is at the right place and is not taken."""
        same = self._same() if is_step else ""
        allowed = "".join(f" AND (e.k <= p.{stop}) IS NOT FALSE" for stop in stops or ())
        selected = f"SELECT p.*, CASE WHEN e.k < p.closes{allowed} THEN e.k END AS {column} FROM {self.last} p"
        events = f"(SELECT * FROM e WHERE {matches})"
        is_free = after.startswith("> ") or self._plan.is_disjoint
        if is_free:
            self._add(f"{selected} ASOF LEFT JOIN {events} e ON e.u = p.u{same} AND e.k {after}")
            return
        others = "".join(f" AND e.k IS DISTINCT FROM p.{other}" for other in taken)
        first = (
            f"(SELECT p.u, p.k1, min(e.k) AS k FROM {self.last} p JOIN {events} e ON e.u = p.u{same}"
            f" WHERE e.k {after} AND e.k < p.closes{others} GROUP BY p.u, p.k1)"
        )
        self._add(f"{selected} LEFT JOIN {first} e ON e.u = p.u AND e.k1 = p.k1")

    def _same(self) -> str:
        return "".join(f" AND e.{held} = p.{held}" for held in self._held)

    def _add(self, select: str) -> None:
        self.last = f"f{len(self.tables)}"
        self.tables.append(f"{self.last} AS ({select})")


def _counted(plan: Plan, chain: str) -> list[str]:
    if plan.counting == TOTALS:
        return _one_after_another(plan, chain)
    tables = []
    if plan.entry != ENTRY_FIRST:
        done = " + ".join(f"(k{number} IS NOT NULL)::INT" for number in plan.required[1:])
        tables = [
            f"ranked AS MATERIALIZED (SELECT *, k1 - ({done}) * {_FURTHER} AS rank FROM {chain})",
            "best AS (SELECT * FROM ranked WHERE (u, rank) IN (SELECT (u, min(rank)) FROM ranked GROUP BY u))",
        ]
        chain = "best"
    return [*tables, f"counted AS MATERIALIZED (SELECT * FROM {chain}{_where_kept(plan)})"]


def _one_after_another(plan: Plan, chain: str) -> list[str]:
    """Of each person the first attempt, and then the first that starts after the end of the one before."""
    taken = ", ".join(f"k{number}" for number in plan.numbers)
    if plan.order == STRICT:
        ends = f"greatest({taken})"
    else:
        complete = f"CASE WHEN k{len(plan.steps)} IS NOT NULL THEN greatest({taken}) ELSE closes - 1 END"
        hits = "".join(f", CASE WHEN {hit} THEN x{index} END" for index, hit in enumerate(_hits(plan)))
        ends = f"least({complete}{hits})"
    following = (
        "SELECT p.u, p.k1, n.k1 AS next FROM ended p"
        " ASOF LEFT JOIN (SELECT u, k1 FROM ended) n ON n.u = p.u AND n.k1 > p.ends"
    )
    further = "SELECT w.u, n.next FROM walked w JOIN following n ON n.u = w.u AND n.k1 = w.k1 WHERE n.next IS NOT NULL"
    return [
        f"ended AS MATERIALIZED (SELECT *, {ends} AS ends FROM {chain})",
        f"following AS MATERIALIZED ({following})",
        f"walked AS (SELECT u, min(k1) AS k1 FROM ended GROUP BY u UNION ALL {further})",
        f"counted AS MATERIALIZED (SELECT ended.* FROM ended JOIN walked USING (u, k1){_where_kept(plan)})",
    ]


def _hits(plan: Plan) -> list[str]:
    """Whether each exclusion is met by an attempt: after its first step, and before its last if that is done."""
    return [
        f"(x{index} IS NOT NULL AND (x{index} < k{exclusion.to_step}) IS NOT FALSE)"
        for index, exclusion in enumerate(plan.exclusions)
    ]


def _where_kept(plan: Plan) -> str:
    return f" WHERE NOT ({' OR '.join(_hits(plan))})" if plan.is_dropped and plan.exclusions else ""

"""SQL: the attempts that count, for most people of most funnels, by the times of events alone.

It is faster than attempts.py, and gives the same. Of one person a later event of a step has a later start behind it, so
the latest event of step k - 1 before an event of step k has the best one: a chain of ASOF joins finds how far each
person gets. The earliest start from which they get there follows from the window, and hash joins with min() find the
steps from it. Where two steps lie at the same time, positions would have to say which came first: those people are
`unclear`, and left to attempts.py.
"""

from nimbus_server.analyses.funnel.plan import AT_ENTRY, AT_STEP, ENTRY_FIRST, ORDERED, PEOPLE, Plan


def can_be_most(plan: Plan) -> bool:
    """Whether the plan is one of those: people in order through steps that no event can match two of."""
    is_plain = plan.order == ORDERED and plan.counting == PEOPLE and plan.is_disjoint
    has_none = not (plan.optional or plan.exclusions or plan.held)
    return is_plain and has_none and (plan.breakdown is None or plan.breakdown.attribution in {AT_ENTRY, AT_STEP})


def most(plan: Plan) -> list[str]:
    """Common table expressions over `events`: `clear` has `u` and the times `t1`, ..., `unclear` has `u`."""
    start = f"SELECT u, t FROM events WHERE m1 AND t < {plan.range.end}"
    if plan.entry == ENTRY_FIRST:
        tables = [f"s1 AS MATERIALIZED (SELECT u, min(t) AS t1 FROM ({start}) GROUP BY u)"]
    else:
        tables = _best_starts(plan, start)
    for number in plan.numbers[1:]:
        tables.append(
            f"s{number} AS MATERIALIZED (SELECT e.u, any_value(p.t1) AS t1, min(e.t) AS t{number}"
            f" FROM (SELECT u, t FROM events WHERE m{number}) e JOIN s{number - 1} p ON p.u = e.u"
            f" WHERE e.t >= p.t{number - 1} - {plan.tie} AND e.t <= p.t1 + {plan.within} GROUP BY e.u)"
        )
    joined = " ".join(f"LEFT JOIN s{number} ON s{number}.u = s1.u" for number in plan.numbers[1:])
    times = ", ".join(f"s{number}.t{number}" for number in plan.numbers)
    is_unclear = "FALSE" if plan.tie else " OR ".join(f"coalesce(t{n} = t{n - 1}, FALSE)" for n in plan.numbers[1:])
    return [
        *tables,
        f"most AS MATERIALIZED (SELECT s1.u, {times} FROM s1 {joined})",
        f"clear AS (SELECT * FROM most WHERE NOT ({is_unclear}))",
        f"unclear AS (SELECT u FROM most WHERE {is_unclear})",
    ]


def _best_starts(plan: Plan, start: str) -> list[str]:
    """`s1`: of each person the earliest start from which they get furthest."""
    chain = [
        f"b{number} AS MATERIALIZED (SELECT e.u, e.t, p.a FROM (SELECT u, t FROM events WHERE m{number}) e"
        f" ASOF JOIN b{number - 1} p ON p.u = e.u AND e.t >= p.t - {plan.tie} WHERE e.t <= p.a + {plan.within})"
        for number in plan.numbers[1:]
    ]
    reached = " UNION ALL ".join(
        f"SELECT u, {number} AS step, min(t) AS t FROM b{number} GROUP BY u" for number in plan.numbers
    )
    earliest = (
        "SELECT b1.u, min(b1.t) AS t1 FROM b1 JOIN furthest f ON f.u = b1.u"
        f" WHERE b1.t >= f.t - {plan.within} GROUP BY b1.u"
    )
    return [
        f"b1 AS MATERIALIZED (SELECT u, t, t AS a FROM ({start}))",
        *chain,
        f"furthest AS (SELECT u, arg_max(t, step) AS t FROM ({reached}) GROUP BY u)",
        f"s1 AS MATERIALIZED ({earliest})",
    ]

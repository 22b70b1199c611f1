"""SQL: what a funnel counts of its attempts, and the people behind it."""

from nimbus_server.analyses.funnel.attempts import attempts, events
from nimbus_server.analyses.funnel.most import can_be_most, most
from nimbus_server.analyses.funnel.plan import AT_ENTRY, AT_STEP, LAST_TOUCH, Breakdown, Plan

VALUES_MAX = 25
# What `g` is of the values that are not told apart.
OTHER = VALUES_MAX + 1
BINS = 20


def answer_sql(plan: Plan) -> str:
    """Rows of kind, number, value, shortest, longest, how many, and then for each step four columns.

    Those are count, median and mean of the time from the step before, and median of that from the first. `all` is one
    row; `group` has the rank and the text of a value, `bucket` its number. `bin` has the number of a bin of the time
    from the first step to the last, with how many, and the shortest and the longest time of all. Times are in
    microseconds.
    """
    steps = _steps(plan)
    parts = [f"SELECT 'all', 0, NULL, NULL, NULL, NULL, {steps} FROM a"]
    if plan.breakdown:
        parts.append(f"SELECT 'group', g, any_value(b), NULL, NULL, NULL, {steps} FROM ranked_values GROUP BY g")
    if plan.buckets:
        parts.append(f"SELECT 'bucket', bucket, NULL, NULL, NULL, NULL, {steps} FROM a GROUP BY bucket")
    number = f"least((d - shortest) * {BINS} // greatest(longest - shortest, 1), {BINS - 1})"
    parts.append(
        f"SELECT 'bin', {number}, NULL, shortest, longest, count(*){', NULL' * 4 * len(plan.steps)} FROM took,"
        " (SELECT min(d) AS shortest, max(d) AS longest FROM took) GROUP BY ALL"
    )
    took = f"took AS (SELECT {_between(1, len(plan.steps))} AS d FROM a WHERE t{len(plan.steps)} IS NOT NULL)"
    return f"{_with(plan, took)} {' UNION ALL '.join(parts)} ORDER BY 1, 2"


def people_sql(plan: Plan, condition: str) -> str:
    """SQL with one column `uid`: the people whose attempt meets a condition on `t1`, ..., `bucket`, `b` and `g`."""
    source = "ranked_values" if plan.breakdown else "a"
    return f"{_with(plan)} SELECT u AS uid FROM {source} WHERE {condition}"


def _with(plan: Plan, *more: str) -> str:
    if can_be_most(plan):
        tables = [*most(plan), *attempts(plan, " WHERE u IN (SELECT u FROM unclear)")]
        selects = [*_clear(plan), *_exact(plan)]
    else:
        tables, selects = attempts(plan), _exact(plan)
    tables = [events(plan), *tables, f"a AS MATERIALIZED ({' UNION ALL BY NAME '.join(selects)})"]
    return "WITH RECURSIVE " + ",\n".join([*tables, *_ranked(plan), *more])


def _exact(plan: Plan) -> list[str]:
    """Of each attempt the times of its steps, its bucket, and the value of its breakdown as `b`."""
    times = ", ".join(f"(c.k{number} >> 64)::BIGINT AS t{number}" for number in plan.numbers)
    bucket = f", {plan.buckets.index('(c.k1 >> 64)::BIGINT')} AS bucket" if plan.buckets else ""
    if plan.breakdown is None:
        return [f"SELECT c.u, {times}{bucket} FROM counted c"]
    values = _values(plan, plan.breakdown)
    return [f"SELECT c.u, {times}{bucket}, v.b FROM counted c LEFT JOIN {values} v ON v.u = c.u AND v.k1 = c.k1"]


def _clear(plan: Plan) -> list[str]:
    """The same of the people of most.py."""
    times = ", ".join(f"c.t{number}" for number in plan.numbers)
    bucket = f", {plan.buckets.index('c.t1')} AS bucket" if plan.buckets else ""
    if plan.breakdown is None:
        return [f"SELECT c.u, {times}{bucket} FROM clear c"]
    step = plan.breakdown.step or 1
    # The first event of the step at that time; packed, because arg_min passes over NULL.
    values = (
        f"(SELECT e.u, arg_min(struct_pack(b := e.b), e.seq).b AS b FROM clear c"
        f" JOIN events e ON e.u = c.u AND e.t = c.t{step} WHERE e.m{step} GROUP BY e.u)"
    )
    return [f"SELECT c.u, {times}{bucket}, v.b FROM clear c LEFT JOIN {values} v ON v.u = c.u"]


def _ranked(plan: Plan) -> list[str]:
    """`ranked_values`: the attempts with `g`, the rank of their value."""
    if plan.breakdown is None:
        return []
    return [
        "top AS (SELECT b, row_number() OVER (ORDER BY count(*) DESC, b IS NULL, b) AS g FROM a GROUP BY b)",
        f"ranked_values AS (SELECT a.*, least(top.g, {OTHER}) AS g FROM a JOIN top ON top.b IS NOT DISTINCT FROM a.b)",
    ]


def _values(plan: Plan, breakdown: Breakdown) -> str:
    if breakdown.attribution in {AT_ENTRY, AT_STEP}:
        key = f"k{breakdown.step}" if breakdown.attribution == AT_STEP else "k1"
        return f"(SELECT c.u, c.k1, e.b FROM counted c JOIN e ON e.u = c.u AND e.k = c.{key})"
    chosen = "max" if breakdown.attribution == LAST_TOUCH else "min"
    keys = ", ".join(f"k{number}" for number in plan.numbers)
    taken = f"(SELECT u, k1, unnest([{keys}]) AS k FROM counted)"
    return (
        f"(SELECT c.u, c.k1, arg_{chosen}(e.b, e.k) AS b FROM {taken} c JOIN e ON e.u = c.u AND e.k = c.k"
        " WHERE e.b IS NOT NULL GROUP BY c.u, c.k1)"
    )


def _steps(plan: Plan) -> str:
    columns = []
    for number in plan.numbers:
        since_before, since_first = _between(plan.before(number), number), _between(1, number)
        columns.append(f"count(t{number})")
        if number == 1:
            columns.append("NULL, NULL, NULL")
        else:
            columns.append(f"median({since_before}), avg({since_before}), median({since_first})")
    return ", ".join(columns)


def _between(first: int, last: int) -> str:
    """Microseconds from a step to another. One that a tie puts before is done at once."""
    return f"CASE WHEN t{last} IS NOT NULL THEN greatest(t{last} - t{first}, 0) END"

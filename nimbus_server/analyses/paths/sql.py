"""The SQL of QueryPaths."""

from nimbus_server.analyses.literal import literal
from nimbus_server.analyses.paths.plan import SESSION_GAP, Plan

# `ranked`: the edges of each step, the most frequent first.
RANKED = """ranked AS (
    SELECT *, row_number() OVER (PARTITION BY step ORDER BY all_paths DESC, source, target) AS rank FROM (
        SELECT step, source, target, count(*) AS people, sum(paths) AS all_paths
        FROM edges GROUP BY step, source, target
    )
)"""


def answer_sql(plan: Plan) -> str:
    """Rows of step, from, to, people, paths, and whether they are where paths ended, in place of an edge.

    The edges of a step come most frequent first, then the rest of them, without from and to. Steps at which no path
    ended are missing.
    """
    length = " + ".join(f"(n{step} IS NOT NULL)::INT" for step in _steps(plan))
    return f"""
WITH {_paths(plan)}, {_edges(plan)}, {RANKED},
others AS (
    SELECT step, count(DISTINCT uid) AS people, sum(paths) AS paths
    FROM edges JOIN ranked USING (step, source, target) WHERE rank > {plan.limit} GROUP BY step
)
SELECT step, source, target, people, paths::BIGINT, is_end FROM (
    SELECT step, source, target, people, all_paths AS paths, rank, FALSE AS is_end
    FROM ranked WHERE rank <= {plan.limit}
    UNION ALL
    SELECT step, NULL, NULL, people, paths, {plan.limit} + 1, FALSE FROM others
    UNION ALL
    SELECT {length} AS step, NULL, NULL, count(DISTINCT uid), count(*), 0, TRUE FROM paths GROUP BY 1
) ORDER BY is_end, step, rank"""


def people_sql(plan: Plan, step: int, source: str, target: str) -> str:
    """The people of an edge, as rows of `uid`."""
    return f"""
WITH {_paths(plan)}
SELECT DISTINCT uid FROM paths WHERE n{step - 1} = {literal(source)} AND n{step} = {literal(target)}"""


def other_people_sql(plan: Plan, step: int) -> str:
    """The people of the edges of a step that are not told apart, as rows of `uid`."""
    return f"""
WITH {_paths(plan)}, {_edges(plan)}, {RANKED}
SELECT DISTINCT uid FROM edges JOIN ranked USING (step, source, target) WHERE step = {step} AND rank > {plan.limit}"""


def _paths(plan: Plan) -> str:
    """`paths`: a row for each anchor, with its person and the nodes n0 (its own) to n<steps> of its path.

    `near` has a number for each person and each stretch of time that an anchor reaches into; two pairs with the same
    number only let more events in. What lies in none is of no path, and windows over every event are what costs.

    Time runs with the path: paths backwards have their times negated. An event that the path may take has `node`. It
    takes those that are `fresh`. `reach` is the last moment of the anchor's session.
    """
    sign, other = ("-", -1) if plan.backwards else ("", 1)
    is_anchor = f"{plan.anchor.predicate} AND t >= {plan.range.start} AND t < {plan.range.end}"
    window = "OVER (PARTITION BY uid ORDER BY t, seq)"
    fresh = f"node IS DISTINCT FROM lag(node IGNORE NULLS) {window}" if plan.collapse_repeats else "TRUE"
    last = f"coalesce(lead(t) {window} - t > {SESSION_GAP}, TRUE)" if plan.within is None else "FALSE"
    steps = ", ".join(
        f"lead(fresh_{what}, {step} IGNORE NULLS) {window} AS {what}{step}"
        for step in _steps(plan)
        for what in ("node", "t")
    )
    reach = f"t + {plan.reach}"
    if plan.within is None:
        rest = "OVER (PARTITION BY uid ORDER BY t, seq ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)"
        reach = f"least({reach}, first_value(last_t IGNORE NULLS) {rest})"
    nodes = ", ".join(f"CASE WHEN t{step} <= reach THEN node{step} END AS n{step}" for step in _steps(plan))
    return f"""
near AS MATERIALIZED (
    SELECT DISTINCT xor(uid, t // {plan.reach} + other) AS near FROM src, (VALUES (0), ({other})) AS stretch(other)
    WHERE uid IS NOT NULL AND {is_anchor}
), events AS (
    SELECT uid, {sign}t AS t, {sign}seq AS seq, {is_anchor} AS is_anchor,
        CASE WHEN {plan.anchor.predicate} OR {plan.nodes.predicate} THEN {plan.node.text()} END AS node
    FROM src WHERE uid IS NOT NULL AND xor(uid, t // {plan.reach}) IN (SELECT near FROM near)
), marked AS (
    SELECT *, {fresh} AS fresh, {last} AS last FROM events
), followed AS (
    SELECT uid, is_anchor, node, {steps}, {reach} AS reach FROM (
        SELECT *, CASE WHEN fresh THEN node END AS fresh_node,
            CASE WHEN fresh AND node IS NOT NULL THEN t END AS fresh_t, CASE WHEN last THEN t END AS last_t
        FROM marked WHERE is_anchor OR last OR (fresh AND node IS NOT NULL)
    )
), paths AS MATERIALIZED (
    SELECT uid, node AS n0, {nodes} FROM followed WHERE is_anchor AND node IS NOT NULL
)"""


def _edges(plan: Plan) -> str:
    """`edges`: how many paths of each person take an edge."""
    edges = " UNION ALL ".join(
        f"SELECT {step} AS step, n{step - 1} AS source, n{step} AS target, uid FROM paths WHERE n{step} IS NOT NULL"
        for step in _steps(plan)
    )
    return f"edges AS MATERIALIZED (SELECT step, source, target, uid, count(*) AS paths FROM ({edges}) GROUP BY ALL)"


def _steps(plan: Plan) -> range:
    return range(1, plan.steps + 1)

"""Properties of events: their paths as a request has them, and their values as SQL over the columns of `src`."""

import re
from dataclasses import dataclass

from nimbus_server.analyses.literal import identifier
from nimbus_server.errors import NimbusError, Reason, field_error

PATH_LENGTH_MAX = 500
# Objects whose keys are properties, and columns that are properties by themselves.
DOCUMENTS = ("props", "context")
COLUMNS = ("name", "user_id", "anonymous_id")
TS = "ts"

_KEY = re.compile(r"(?:[^.\\]|\\[.\\])*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"([.\\])")


@dataclass(frozen=True, slots=True, order=True)
class Property:
    """A property: `root` is a column of an event, `keys` lead to a value in it where that is a JSON object.

    Its SQL reads the columns `"<path>:s"`, `:n`, `:b` and `:j` of `src`; `prefix` is that of a table, such as `e.`.
    """

    root: str
    keys: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path as a request has it: the same for the same property."""
        return ".".join([self.root, *(_SPECIAL.sub(r"\\\1", key) for key in self.keys)])

    def text(self, prefix: str = "") -> str:
        """SQL: the value as text, NULL where it is missing.

        Numbers have the shortest decimal form of their double, whole ones without a point. Lists, objects and numbers
        from 2^53 on are as in JSON.
        """
        if not self.keys:
            return self.column("s", prefix)
        n, b = self.column("n", prefix), self.column("b", prefix)
        number = f"CASE WHEN {n} = trunc({n}) THEN CAST(CAST({n} AS BIGINT) AS VARCHAR) ELSE CAST({n} AS VARCHAR) END"
        boolean = f"CASE {b} WHEN TRUE THEN 'true' WHEN FALSE THEN 'false' END"
        # A coalesce of all four takes twice the time where all values are texts.
        s, rest = self.column("s", prefix), f"coalesce({number}, {boolean}, {self.column('j', prefix)})"
        return f"CASE WHEN {s} IS NOT NULL THEN {s} ELSE {rest} END"

    def number(self, prefix: str = "") -> str:
        """SQL: the value as DOUBLE, NULL where it is no number."""
        if not self.keys:
            return "NULL::DOUBLE"
        return f"coalesce({self.column('n', prefix)}, TRY_CAST({self.column('j', prefix)} AS DOUBLE))"

    def is_set(self, prefix: str = "") -> str:
        """SQL: whether there is a value."""
        kinds = "snbj" if self.keys else "s"
        return "(" + " OR ".join(f"{self.column(kind, prefix)} IS NOT NULL" for kind in kinds) + ")"

    def column(self, kind: str, prefix: str = "") -> str:
        """SQL: the column with the values of one kind (`s`, `n`, `b` or `j`). Without keys only `s` has any."""
        if self.keys:
            return prefix + identifier(f"{self.path}:{kind}")
        if self.root == TS:
            return f"{prefix}t"
        return prefix + self.root if kind == "s" else "NULL"


def property_field(field: str, path: str, *, may_be_ts: bool = False) -> Property:
    """The property that a request's field names.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID.
    """
    if not path:
        raise field_error(Reason.FIELD_REQUIRED, field, f"{field} is required: the path of a property.")
    if len(path) > PATH_LENGTH_MAX:
        raise field_error(
            Reason.FIELD_TOO_LONG, field, f"{field} is too long: a path has at most {PATH_LENGTH_MAX} characters."
        )
    if path in COLUMNS:
        return Property(path)
    if path == TS:
        if may_be_ts:
            return Property(TS)
        raise field_error(Reason.FIELD_INVALID, field, f"{field} can't be ts.")
    root, dot, rest = path.partition(".")
    if root not in DOCUMENTS or not dot or "\0" in rest:
        raise _invalid(field)
    return Property(root, _keys(field, rest))


def _keys(field: str, text: str) -> tuple[str, ...]:
    keys, at = [], 0
    while True:
        found = _KEY.match(text, at)
        assert found is not None  # noqa: S101 - it matches no characters too
        keys.append(_ESCAPED.sub(r"\1", found[0]))
        at = found.end() + 1
        if at > len(text):
            return tuple(keys)
        if text[at - 1] != ".":
            raise _invalid(field)


def _invalid(field: str) -> NimbusError:
    return field_error(
        Reason.FIELD_INVALID,
        field,
        f"{field} must be a path such as props.plan, context.page.path, name, user_id or anonymous_id; within a key a "
        "dot is written \\. and a backslash \\\\.",
    )

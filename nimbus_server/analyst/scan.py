"""The SQL of what a question reads: the relation `src`, made of segments and of the events behind them.

Its columns are seq, t (microseconds since 1970), name, uid, person, user_id, anonymous_id, and four for each property
that is needed, of which at most one is not NULL: `<path>:s` (text), `:n` (number), `:b` (boolean), `:j` (other JSON).
Where whole documents are needed, `props` and `context` besides, as JSON text.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import UUID

from nimbus_server.analyses.literal import identifier, literal
from nimbus_server.analyses.property import DOCUMENTS, Property
from nimbus_server.analyses.question import Needs
from nimbus_server.segments.columns import extract_sql, kinds_sql
from nimbus_server.segments.manifest import Snapshot, segment_path

TYPES = {"s": "VARCHAR", "n": "DOUBLE", "b": "BOOLEAN", "j": "VARCHAR"}
# What DuckDB knows the result of `tail_query` by.
ROWS = "tail_rows"


@dataclass(frozen=True)
class Scan:
    """What a question reads of a project's log: `cut` is the time, in microseconds, before which events are dropped."""

    project_id: UUID
    needs: Needs
    snapshot: Snapshot
    folder: Path
    cut: int | None

    @cached_property
    def stored(self) -> list[Property]:
        """The properties that have to be taken out of JSON; columns of their own have the others."""
        return sorted(p for p in self.needs.properties if p.root in DOCUMENTS)

    @property
    def documents(self) -> tuple[str, ...]:
        """The columns of JSON that are needed whole."""
        return DOCUMENTS if self.needs.documents else ()

    @cached_property
    def tail_query(self) -> str:
        """PostgreSQL's: the events that are in no segment.

        The time is left to `view`: by it PostgreSQL would choose another index, and read all of the time.
        """
        columns = ["seq", "ts", "name", "user_id", "anonymous_id", *(f"{d}::text AS {d}" for d in self.documents)]
        # By key and never by index, as `->` takes a text.
        columns += [
            f"({'->'.join((p.root, *map(literal, p.keys)))})::text AS {_json(n)}" for n, p in enumerate(self.stored)
        ]
        return f"SELECT {', '.join(columns)} FROM events WHERE {self._behind} ORDER BY seq"

    @cached_property
    def tail_count_query(self) -> str:
        """PostgreSQL's: how many rows `tail_query` has."""
        return f"SELECT count(*) AS count FROM events WHERE {self._behind}"

    @cached_property
    def tail_table(self) -> str:
        """Makes the table `tail`, empty."""
        columns = ["seq BIGINT", "t BIGINT", "name VARCHAR", "user_id VARCHAR", "anonymous_id VARCHAR"]
        columns += [f"{name} VARCHAR" for name in (*self.documents, *map(_json, range(len(self.stored))))]
        return f"CREATE TEMP TABLE tail ({', '.join(columns)})"

    @cached_property
    def fill_tail(self) -> str:
        """Fills it from the result of `tail_query`, registered as ROWS."""
        columns = ["seq", "epoch_us(ts)", "name", "user_id", "anonymous_id", *self.documents]
        columns += [_as_extracted(_json(n)) for n in range(len(self.stored))]
        return f"INSERT INTO tail SELECT {', '.join(columns)} FROM {ROWS}"

    @cached_property
    def view(self) -> str:
        """Makes the view `src`."""
        parts = [self._tail(), *(self._segments(files, dict(kinds)) for kinds, files in self._groups().items())]
        return "CREATE TEMP VIEW src AS\n" + "\nUNION ALL\n".join(parts)

    def missing_file(self) -> Path | None:
        """A file that the manifest names and that is not there, if there is one."""
        paths = (segment_path(self.folder, self.project_id, segment.id) for segment in self.snapshot.segments)
        return next((path for path in paths if not path.exists()), None)

    @property
    def _behind(self) -> str:
        first, last = self.snapshot.exported, self.snapshot.log_end
        return f"project_id = '{self.project_id}' AND seq > {first} AND seq <= {last}{self._named}"

    @property
    def _named(self) -> str:
        names = self.needs.names
        if names is None:
            return ""
        return f" AND name IN ({', '.join(map(literal, sorted(names)))})" if names else " AND FALSE"

    def _groups(self) -> Mapping[tuple[tuple[str, str | None], ...], list[Path]]:
        """The files by the kinds of the needed properties that have columns in them; None where one has none."""
        groups = defaultdict(list)
        for segment in self.snapshot.segments:
            kinds = tuple((p.path, segment.columns.get(p.path)) for p in self.stored)
            groups[kinds].append(segment_path(self.folder, self.project_id, segment.id))
        return groups

    def _tail(self) -> str:
        columns = [
            "seq, t, name, (md5_number_lower(coalesce(user_id, anonymous_id)) >> 1)::BIGINT AS uid",
            "coalesce(user_id, anonymous_id) AS person, user_id, anonymous_id",
            *self.documents,
            *(self._from_json(p, _json(n)) for n, p in enumerate(self.stored)),
        ]
        conditions = [*self._times("t", str), *(erasure.kept for erasure in self.snapshot.erasures)]
        return f"SELECT {', '.join(columns)} FROM tail{_where(conditions)}"

    def _segments(self, files: Iterable[Path], kinds: Mapping[str, str | None]) -> str:
        columns = [
            "seq, epoch_us(ts) AS t, name, uid",
            "coalesce(user_id, anonymous_id) AS person, user_id, anonymous_id",
            *self.documents,
        ]
        inner = ["seq, ts, name, uid, user_id, anonymous_id", *self.documents]
        for n, p in enumerate(self.stored):
            promoted = kinds.get(p.path)
            if promoted is not None:
                names = {kind: identifier(f"{p.path}:{kind}") for kind in TYPES}
                inner += [names[kind] for kind in promoted]
                columns += [
                    names[kind] if kind in promoted else f"NULL::{TYPES[kind]} AS {names[kind]}" for kind in TYPES
                ]
            else:
                inner.append(f"{extract_sql(p.root, p.keys)} AS {_json(n)}")
                columns.append(self._from_json(p, _json(n)))
        listed = ", ".join(literal(str(file)) for file in files)
        conditions = [
            *self._times("ts", lambda t: f"make_timestamp({t})"),
            *([self._named.removeprefix(" AND ")] if self._named else []),
            *(erasure.kept for erasure in self.snapshot.erasures),
        ]
        source = f"(SELECT {', '.join(inner)} FROM read_parquet([{listed}]){_where(conditions)})"
        return f"SELECT {', '.join(columns)} FROM {source}"

    def _from_json(self, property_: Property, text: str) -> str:
        return ", ".join(f"{sql} AS {identifier(f'{property_.path}:{kind}')}" for kind, sql in kinds_sql(text).items())

    def _times(self, column: str, moment: Callable[[int], str]) -> list[str]:
        starts = [start for start in (self.needs.start, self.cut) if start is not None]
        found = [f"{column} >= {moment(max(starts))}"] if starts else []
        return [*found, *([f"{column} < {moment(self.needs.end)}"] if self.needs.end is not None else [])]


def _json(n: int) -> str:
    return f"json_{n}"


def _as_extracted(text: str) -> str:
    """SQL: JSON text of PostgreSQL as DuckDB writes what it takes out of a segment: without blanks, numbers as it does.

    Of texts, only the value counts.
    """
    return (
        f"CASE WHEN ascii({text}) = 34 THEN {text} ELSE nullif(CAST(json_extract({text}, '$') AS VARCHAR), 'null') END"
    )


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""

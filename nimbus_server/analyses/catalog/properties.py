"""ListProperties: the properties of events, how many events have each, and the types of their values."""

from dataclasses import dataclass

from nimbus.v1.catalog_pb2 import ListPropertiesRequest, ListPropertiesResponse, PropertyInfo
from nimbus_server.analyses.catalog.request import (
    at,
    contains,
    limit_field,
    names_field,
    search_field,
    since_field,
)
from nimbus_server.analyses.property import DOCUMENTS
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.ingest.event import PROPS_DEPTH_MAX

# By the types of JSON as DuckDB names them.
_TYPE = (
    "CASE type WHEN 'VARCHAR' THEN 'text' WHEN 'BOOLEAN' THEN 'boolean' WHEN 'ARRAY' THEN 'list'"
    " WHEN 'OBJECT' THEN 'object' ELSE 'number' END"
)
_KEY = r"replace(replace(e.key, '\', '\\'), '.', '\.')"


@dataclass(frozen=True, slots=True)
class Properties:
    """The question; `search` is empty for all properties."""

    needs: Needs
    search: str
    limit: int

    def answer(self, ask: Ask, as_of: AsOf) -> ListPropertiesResponse:
        """See the module."""
        rows = ask(_sql(self.search, self.limit))
        return ListPropertiesResponse(
            as_of_position=as_of.position,
            properties=[
                PropertyInfo(property=path, events=events, types=types, first_seen=at(first), last_seen=at(last))
                for path, events, types, first, last, _ in rows
            ],
            count=rows[0][-1] if rows else 0,
        )


def read(request: ListPropertiesRequest, asked: Asked) -> Properties:
    """The question in a request. Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG."""
    needs = Needs(since_field(request, asked), None, names_field(request.name), frozenset(), documents=True)
    return Properties(needs, search_field(request.search), limit_field(request.limit))


def _sql(search: str, limit: int) -> str:
    """Level by level: the properties of an object, then those of the objects among them."""
    roots = " UNION ALL ".join(
        f"SELECT '{root}' AS path, t, 'OBJECT' AS type, {root} AS value FROM src" for root in DOCUMENTS
    )
    levels = [f"l0 AS ({roots})"]
    levels += [
        f"l{level} AS (SELECT p.path || '.' || {_KEY} AS path, p.t, e.type, e.value"
        f" FROM l{level - 1} p, json_each(p.value) e WHERE p.type = 'OBJECT' AND e.type <> 'NULL')"
        for level in range(1, PROPS_DEPTH_MAX + 1)
    ]
    found = " UNION ALL ".join(f"SELECT path, t, type FROM l{level}" for level in range(1, PROPS_DEPTH_MAX + 1))
    by_type = (
        f"SELECT path, {_TYPE} AS type, count(*) AS events, min(t) AS first, max(t) AS last FROM ({found})"
        f" WHERE {contains('path', search)} GROUP BY ALL"
    )
    return (
        f"WITH {', '.join(levels)} SELECT path, CAST(sum(events) AS BIGINT) AS all_events,"
        f" list_sort(list(DISTINCT type)), min(first), max(last), count(*) OVER () FROM ({by_type})"
        f" GROUP BY path ORDER BY all_events DESC, path LIMIT {limit}"
    )

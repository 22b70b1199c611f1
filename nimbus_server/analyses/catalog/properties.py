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
from nimbus_server.rpc.fields import timestamp

# By the types of JSON as DuckDB names them.
_TYPE = (
    "CASE type WHEN 'VARCHAR' THEN 'text' WHEN 'BOOLEAN' THEN 'boolean' WHEN 'ARRAY' THEN 'list'"
    " WHEN 'OBJECT' THEN 'object' ELSE 'number' END"
)
_KEY = r"replace(replace(key, '\', '\\'), '.', '\.')"


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
            complete_through=timestamp(as_of.at),
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
    """Level by level: the properties of objects are counted, and the objects among them are those of the next level."""
    roots = " UNION ALL ".join(f"SELECT '{root}' AS above, t, {root} AS object FROM src" for root in DOCUMENTS)
    tables, counts = [f"o0 AS ({roots})"], []
    for level in range(PROPS_DEPTH_MAX):
        # Counted by key: the path is made of few rows then.
        counts.append(
            f"SELECT above || '.' || {_KEY} AS path, {_TYPE} AS type, events, first, last FROM ("
            f"SELECT above, key, type, count(*) AS events, min(t) AS first, max(t) AS last"
            f" FROM o{level}, json_each(object) WHERE type <> 'NULL' GROUP BY above, key, type)"
        )
        tables.append(
            f"o{level + 1} AS MATERIALIZED (SELECT above || '.' || {_KEY} AS above, t, value AS object"
            f" FROM (FROM o{level} WHERE contains(substr(object, 2), '{{')), json_each(object)"
            " WHERE type = 'OBJECT')"
        )
    return (
        f"WITH {', '.join(tables[:-1])} SELECT path, CAST(sum(events) AS BIGINT) AS all_events,"
        f" list_sort(list(DISTINCT type)), min(first), max(last), count(*) OVER () FROM ({' UNION ALL '.join(counts)})"
        f" WHERE {contains('path', search)} GROUP BY path ORDER BY all_events DESC, path LIMIT {limit}"
    )

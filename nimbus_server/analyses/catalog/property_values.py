"""ListPropertyValues: the values of a property as text, and how many events have each."""

from dataclasses import dataclass

from nimbus.v1.catalog_pb2 import ListPropertyValuesRequest, ListPropertyValuesResponse, PropertyValueInfo
from nimbus_server.analyses.catalog.request import contains, limit_field, names_field, search_field, since_field
from nimbus_server.analyses.property import Property, property_field
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.rpc.fields import timestamp


@dataclass(frozen=True, slots=True)
class PropertyValues:
    """The question; `search` is empty for all values."""

    needs: Needs
    prop: Property
    search: str
    limit: int

    def answer(self, ask: Ask, as_of: AsOf) -> ListPropertyValuesResponse:
        """See the module."""
        rows = ask(
            f"SELECT value, count(*) AS events, count(*) OVER () FROM (SELECT {self.prop.text()} AS value FROM src)"
            f" WHERE value IS NOT NULL AND {contains('value', self.search)}"
            f" GROUP BY value ORDER BY events DESC, value LIMIT {self.limit}"
        )
        return ListPropertyValuesResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            values=[PropertyValueInfo(value=value, events=events) for value, events, _ in rows],
            count=rows[0][-1] if rows else 0,
        )


def read(request: ListPropertyValuesRequest, asked: Asked) -> PropertyValues:
    """The question in a request. Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG."""
    prop = property_field("property", request.property)
    needs = Needs(since_field(request, asked), None, names_field(request.name), frozenset({prop}))
    return PropertyValues(needs, prop, search_field(request.search), limit_field(request.limit))

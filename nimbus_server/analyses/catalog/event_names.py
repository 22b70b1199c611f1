"""ListEventNames: the names of events, how many have each, the first and the last of them."""

from dataclasses import dataclass

from nimbus.v1.catalog_pb2 import EventNameInfo, ListEventNamesRequest, ListEventNamesResponse
from nimbus_server.analyses.catalog.request import at, contains, limit_field, search_field
from nimbus_server.analyses.question import Ask, Asked, AsOf, Needs
from nimbus_server.rpc.fields import timestamp

_NEEDS = Needs(None, None, None, frozenset())


@dataclass(frozen=True, slots=True)
class EventNames:
    """The question; `search` is empty for all names."""

    search: str
    limit: int

    @property
    def needs(self) -> Needs:
        """Every event, and its name alone."""
        return _NEEDS

    def answer(self, ask: Ask, as_of: AsOf) -> ListEventNamesResponse:
        """See the module."""
        rows = ask(
            "SELECT name, count(*) AS events, min(t), max(t), count(*) OVER () FROM src"
            f" WHERE {contains('name', self.search)} GROUP BY name ORDER BY events DESC, name LIMIT {self.limit}"
        )
        return ListEventNamesResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            names=[
                EventNameInfo(name=name, events=events, first_seen=at(first), last_seen=at(last))
                for name, events, first, last, _ in rows
            ],
            count=rows[0][-1] if rows else 0,
        )


def read(request: ListEventNamesRequest, _asked: Asked) -> EventNames:
    """The question in a request. Raises NimbusError with FIELD_INVALID or FIELD_TOO_LONG."""
    return EventNames(search_field(request.search), limit_field(request.limit))

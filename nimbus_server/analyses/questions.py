"""The questions that there are, by the name of their RPC."""

from collections.abc import Mapping
from typing import Any

from nimbus_server.analyses.catalog import event_names, properties, property_values
from nimbus_server.analyses.funnel import answer as funnel
from nimbus_server.analyses.paths import answer as paths
from nimbus_server.analyses.people.request import ReadWithPeople, reader
from nimbus_server.analyses.question import Asked, Needs, Question, Read
from nimbus_server.analyses.retention import answer as retention
from nimbus_server.analyses.selector import check_conditions
from nimbus_server.analyses.trend import answer as trend
from nimbus_server.errors import Reason, field_error

# Those with people behind the numbers of their answers, by the field that they are in ListPeopleBehind.
_WITH_PEOPLE: Mapping[str, ReadWithPeople] = {
    "trend": trend.read,
    "funnel": funnel.read,
    "retention": retention.read,
    "paths": paths.read,
}
QUESTIONS: Mapping[str, Read] = {
    "QueryTrend": trend.read,
    "QueryFunnel": funnel.read,
    "QueryRetention": retention.read,
    "QueryPaths": paths.read,
    "ListPeopleBehind": reader(_WITH_PEOPLE),
    "ListEventNames": event_names.read,
    "ListProperties": properties.read,
    "ListPropertyValues": property_values.read,
}


def read_question(rpc: str, request: Any, asked: Asked) -> Question:
    """The question in the request of an RPC.

    Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG, and the path of what is wrong.
    """
    check_conditions("filter", request)
    question = QUESTIONS[rpc](request, asked)
    check_letters(question.needs)
    return question


def check_letters(needs: Needs) -> None:
    """Refuse two properties whose paths differ in the case of letters alone: DuckDB takes their columns for one.

    Raises NimbusError with FIELD_INVALID.
    """
    seen: dict[str, str] = {}
    for prop in needs.properties:
        other = seen.setdefault(prop.path.lower(), prop.path)
        if other != prop.path:
            raise field_error(
                Reason.FIELD_INVALID,
                "property",
                f"{other} and {prop.path} differ in the case of letters alone: ask for them in two questions.",
            )

"""The questions that there are, by the name of their RPC."""

from collections.abc import Mapping
from typing import Any

from nimbus_server.analyses.catalog import event_names, properties, property_values
from nimbus_server.analyses.funnel import answer as funnel
from nimbus_server.analyses.question import Asked, Question, Read
from nimbus_server.analyses.selector import check_conditions
from nimbus_server.errors import Reason, field_error

QUESTIONS: Mapping[str, Read] = {
    "ListEventNames": event_names.read,
    "ListProperties": properties.read,
    "ListPropertyValues": property_values.read,
    "QueryFunnel": funnel.read,
}


def read_question(rpc: str, request: Any, asked: Asked) -> Question:
    """The question in the request of an RPC.

    Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG, and the path of what is wrong.
    """
    check_conditions("filter", request)
    question = QUESTIONS[rpc](request, asked)
    _check_letters(question)
    return question


def _check_letters(question: Question) -> None:
    """Refuse two properties whose paths differ in the case of letters alone: DuckDB takes their columns for one."""
    seen: dict[str, str] = {}
    for prop in question.needs.properties:
        other = seen.setdefault(prop.path.lower(), prop.path)
        if other != prop.path:
            raise field_error(
                Reason.FIELD_INVALID,
                "property",
                f"{other} and {prop.path} differ in the case of letters alone: ask for them in two questions.",
            )

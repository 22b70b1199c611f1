"""What ListPeopleBehind is asked: a question, and a cell of its answer."""

from collections.abc import Callable, Mapping
from typing import Any

from nimbus.v1.people_pb2 import ListPeopleBehindRequest
from nimbus_server.analyses.people.answer import PeopleBehind, WithPeople
from nimbus_server.analyses.people.page import read_page_token
from nimbus_server.analyses.question import Asked, Read
from nimbus_server.errors import NimbusError, Reason, Violation, field_error
from nimbus_server.rpc.fields import int_field

# The field of the cell, by that of the question.
CELLS: Mapping[str, str] = {
    "trend": "trend_cell",
    "funnel": "funnel_cell",
    "retention": "retention_cell",
    "paths": "path_cell",
}
PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000

ReadWithPeople = Callable[[Any, Asked], WithPeople]


def reader(questions: Mapping[str, ReadWithPeople]) -> Read:
    """The read function of ListPeopleBehind, which reads the question with those in `questions`, by its field."""

    def read(request: ListPeopleBehindRequest, asked: Asked) -> PeopleBehind:
        return _read(questions, request, asked)

    return read


def _read(questions: Mapping[str, ReadWithPeople], request: ListPeopleBehindRequest, asked: Asked) -> PeopleBehind:
    """The question in a request.

    Raises NimbusError with FIELD_REQUIRED, FIELD_TOO_LONG or FIELD_INVALID, and the path of what is wrong; for a cell
    that is none of the answer's too.
    """
    kind = request.WhichOneof("question")
    if kind is None:
        raise field_error(
            Reason.FIELD_REQUIRED, "question", f"question is required: one of {', '.join(CELLS)}, as it was asked."
        )
    cell = request.WhichOneof("cell")
    if cell is None:
        raise field_error(
            Reason.FIELD_REQUIRED, CELLS[kind], f"{CELLS[kind]} is required: which number of the answer is meant."
        )
    if cell != CELLS[kind]:
        raise field_error(
            Reason.FIELD_INVALID, cell, f"{cell} does not belong to an answer of {kind}: give a {CELLS[kind]}."
        )
    question = _question(kind, questions[kind], request, asked)
    return PeopleBehind(
        question=question,
        behind=question.people(getattr(request, cell)),
        page_size=int_field("page_size", request.page_size or PAGE_SIZE_DEFAULT, 1, PAGE_SIZE_MAX),
        after=read_page_token(request.page_token) if request.page_token else None,
    )


def _question(kind: str, read: ReadWithPeople, request: ListPeopleBehindRequest, asked: Asked) -> WithPeople:
    inner = getattr(request, kind)
    if inner.project_id and inner.project_id.lower() != request.project_id.lower():
        raise field_error(
            Reason.FIELD_INVALID,
            f"{kind}.project_id",
            f"{kind}.project_id must be that of the request, or be left out.",
        )
    if inner.HasField("json_body"):
        raise field_error(Reason.FIELD_INVALID, f"{kind}.json_body", "json_body is for the REST gateway alone.")
    try:
        return read(inner, asked)
    except NimbusError as error:
        raise _within(kind, error) from None


def _within(kind: str, error: NimbusError) -> NimbusError:
    """The error of a question that is a field of the request: the paths of its fields begin with that."""
    prefixed = (Violation(f"{kind}.{one.field}", f"{kind}.{one.message}") for one in error.violations)
    message = f"{kind}.{error.message}" if error.violations else error.message
    return NimbusError(
        error.reason,
        message,
        violations=tuple(prefixed),
        metadata=error.metadata,
        retry_after_seconds=error.retry_after_seconds,
    )

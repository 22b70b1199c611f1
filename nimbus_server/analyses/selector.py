"""Selectors: which events a question means, as a SQL predicate over `src`."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import Message

from nimbus.v1.question_pb2 import Condition, EventSelector, Filter
from nimbus_server.analyses.condition import read_condition
from nimbus_server.analyses.literal import literals
from nimbus_server.analyses.property import Property
from nimbus_server.errors import Reason, field_error
from nimbus_server.rpc.fields import filter_field, text_field

NAMES_MAX = 100
NAME_LENGTH_MAX = 200
LABEL_LENGTH_MAX = 200
LEVELS_MAX = 5
CONDITIONS_MAX = 100
# Messages in a question, those within conditions left out. None that is valid has as many.
PARTS_MAX = 10_000

# What none of the events with a name of its own has: those are Nimbus's.
ANY_NAME = "(NOT starts_with(name, '$'))"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which events: those for which `predicate` is TRUE; it is never NULL.

    `names`: no event of another name can match; None: any name can. `properties` are those that the predicate reads.
    """

    predicate: str
    names: frozenset[str] | None
    properties: frozenset[Property]
    label: str


def read_selector(field: str, selector: EventSelector) -> Selector:
    """The selector in a request's field.

    Raises NimbusError with FIELD_REQUIRED, FIELD_INVALID or FIELD_TOO_LONG, and the path of what is wrong.
    """
    names = sorted(set(filter_field(f"{field}.names", selector.names, NAME_LENGTH_MAX, NAMES_MAX)))
    default = ", ".join(dict.fromkeys(selector.names)) if names else "All events"
    label = text_field(f"{field}.label", selector.label, LABEL_LENGTH_MAX) if selector.label else default
    predicate = f"(name IN ({literals(names)}))" if names else ANY_NAME
    properties: set[Property] = set()
    if selector.HasField("filter"):
        check_conditions(f"{field}.filter", selector.filter)
        predicate = f"({predicate} AND {_filter(f'{field}.filter', selector.filter, properties, LEVELS_MAX)})"
    return Selector(predicate, frozenset(names) if names else None, frozenset(properties), label)


def check_conditions(field: str, message: Message) -> None:
    """Raise NimbusError with FIELD_TOO_LONG where a question, or a part of it, has too many conditions or parts."""
    conditions = 0
    for count, part in enumerate(_parts(message), start=1):
        conditions += isinstance(part, Condition)
        if conditions > CONDITIONS_MAX:
            raise field_error(
                Reason.FIELD_TOO_LONG,
                field,
                f"{field} has too many conditions: a question has at most {CONDITIONS_MAX}.",
            )
        if count > PARTS_MAX:
            raise field_error(Reason.FIELD_TOO_LONG, field, f"{field} has too many parts.")


def _parts(message: Message) -> Iterator[Message]:
    """The messages that a message is made of; conditions are not taken apart."""
    yield message
    if isinstance(message, Condition):
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _parts(inner)


def _filter(field: str, given: Filter, properties: set[Property], levels: int) -> str:
    if levels == 0:
        raise field_error(
            Reason.FIELD_INVALID, field, f"{field} is too deep: a filter has at most {LEVELS_MAX} levels."
        )
    kinds = [kind.name for kind, _ in given.ListFields()]
    if len(kinds) != 1:
        raise field_error(
            Reason.FIELD_INVALID, field, f"{field} must have exactly one of all_of, any_of, not and condition."
        )
    kind = kinds[0]
    if kind == "condition":
        predicate, prop = read_condition(f"{field}.condition", given.condition)
        properties.add(prop)
        return predicate
    if kind == "not":
        return f"(NOT {_filter(f'{field}.not', getattr(given, 'not'), properties, levels - 1)})"
    parts = [
        _filter(f"{field}.{kind}[{index}]", part, properties, levels - 1)
        for index, part in enumerate(getattr(given, kind))
    ]
    return f"({(' AND ' if kind == 'all_of' else ' OR ').join(parts)})"

"""What a question is: the events that it reads, and how their rows become its answer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from google.protobuf.message import Message

from nimbus_server.analyses.property import Property


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known when a question comes: the moment, and the time zone of the project, which is the default."""

    now: datetime
    timezone: str


@dataclass(frozen=True, slots=True)
class Needs:
    """The events that a question reads, and what of them.

    `start <= t < end` in microseconds since 1970 UTC, None for no bound; only events with one of `names`, None for all;
    `properties` have their columns in `src`. With `documents`, `src` has the columns `props` and `context` besides: the
    whole JSON texts.
    """

    start: int | None
    end: int | None
    names: frozenset[str] | None
    properties: frozenset[Property]
    documents: bool = False


@dataclass(frozen=True, slots=True)
class AsOf:
    """What an answer holds: every event up to the position, read at that moment."""

    position: int
    at: datetime


# Runs one statement over `src`, and returns its rows.
Ask = Callable[[str], list[tuple[Any, ...]]]


class Question(Protocol):
    """A question that has been read and found valid."""

    @property
    def needs(self) -> Needs:
        """The events that it reads."""

    def answer(self, ask: Ask, as_of: AsOf) -> Message:
        """The response, from one or a few statements."""


# From a request and what is known when it comes to a question. Raises NimbusError with the path of what is wrong.
Read = Callable[[Any, Asked], Question]

"""The question ListPeopleBehind: which people, and how the rows of its statement become the response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nimbus.v1.people_pb2 import ListPeopleBehindResponse, PersonBehind
from nimbus_server.analyses.people.page import page_token
from nimbus_server.analyses.question import Ask, AsOf, Needs, Question
from nimbus_server.rpc.fields import timestamp


class WithPeople(Question, Protocol):
    """A question that can say who is behind a number of its answer."""

    @property
    def semantics(self) -> Mapping[str, str]:
        """The rules in force, by the names of the request's fields."""

    def people(self, cell: Any) -> str:
        """SQL with one column `uid`, each person once. Raises NimbusError where the cell is none of the answer's."""


@dataclass(frozen=True, slots=True)
class PeopleBehind:
    """A question of ListPeopleBehind: the one whose answer the cell is of, and SQL with the people behind that.

    People are in the order of `uid`. A page starts after `after`, or with the first of them.
    """

    question: WithPeople
    behind: str
    page_size: int
    after: int | None

    @property
    def needs(self) -> Needs:
        """The events that the question reads."""
        return self.question.needs

    def answer(self, ask: Ask, as_of: AsOf) -> ListPeopleBehindResponse:
        """The response, from one statement."""
        count, *rows = ask(self._sql())
        people = rows[: self.page_size]
        return ListPeopleBehindResponse(
            as_of_position=as_of.position,
            complete_through=timestamp(as_of.at),
            semantics=self.question.semantics,
            people=[PersonBehind(id=person) for _, person in people],
            count=count[0],
            next_page_token=page_token(people[-1][0]) if len(rows) > len(people) else "",
        )

    def _sql(self) -> str:
        """A row with the number of people, then rows of `uid` and what the person is known by.

        There is one more of them than the page has, where there are more.
        """
        after = "" if self.after is None else f" WHERE uid > {self.after}"
        return f"""
WITH behind AS MATERIALIZED ({self.behind}),
page AS MATERIALIZED (SELECT uid FROM behind{after} ORDER BY uid LIMIT {self.page_size + 1}),
person AS (SELECT uid, min(person) AS id FROM src WHERE uid IN (SELECT uid FROM page) GROUP BY uid)
SELECT n, id FROM (
    SELECT 0 AS part, count(*) AS n, NULL AS id FROM behind UNION ALL SELECT 1 AS part, uid AS n, id FROM person
) ORDER BY part, n"""

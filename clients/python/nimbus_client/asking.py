"""The questions of `Nimbus`; what they take and answer stands in the protos."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar, Unpack

import grpc

from nimbus.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from nimbus.v1.catalog_pb2 import (
    ListEventNamesRequest,
    ListEventNamesResponse,
    ListPropertiesResponse,
    ListPropertyValuesResponse,
)
from nimbus.v1.funnel_pb2 import FunnelStepQuery, QueryFunnelResponse
from nimbus.v1.paths_pb2 import QueryPathsResponse
from nimbus.v1.people_pb2 import ListPeopleBehindResponse
from nimbus.v1.retention_pb2 import QueryRetentionResponse
from nimbus.v1.trend_pb2 import QueryTrendResponse, TrendSeriesQuery
from nimbus_client import questions
from nimbus_client.options import Events, FunnelOptions, PathOptions, RetentionOptions, TrendOptions
from nimbus_client.questions import Cell, Question

Request = TypeVar("Request")
Response = TypeVar("Response")


class Asking(ABC):
    """Asks about one project. Every method raises `NimbusError` as those that send do."""

    _project_id: str
    _analyses: AnalysisServiceStub

    def trend(self, lines: Iterable[Events | TrendSeriesQuery], **options: Unpack[TrendOptions]) -> QueryTrendResponse:
        """Numbers over time: a line for each event name, selector or `series(…)`.

        Raises ValueError for an option that no field can hold, as do the other questions.
        """
        return self._ask(self._analyses.QueryTrend, questions.trend_request(self._project_id, lines, options))

    def funnel(
        self, steps: Iterable[Events | FunnelStepQuery], **options: Unpack[FunnelOptions]
    ) -> QueryFunnelResponse:
        """Who goes from step to step, how long it takes, where they leave."""
        return self._ask(self._analyses.QueryFunnel, questions.funnel_request(self._project_id, steps, options))

    def retention(
        self, begin: Events, come_back: Events, **options: Unpack[RetentionOptions]
    ) -> QueryRetentionResponse:
        """Who does `begin`, and who of them comes back to do `come_back`."""
        return self._ask(
            self._analyses.QueryRetention, questions.retention_request(self._project_id, begin, come_back, options)
        )

    def paths(self, anchor: Events, **options: Unpack[PathOptions]) -> QueryPathsResponse:
        """What people do after an event, or did before it."""
        return self._ask(self._analyses.QueryPaths, questions.paths_request(self._project_id, anchor, options))

    def people_behind(
        self, question: Question, cell: Cell, *, page_size: int = 100, page_token: str = ""
    ) -> ListPeopleBehindResponse:
        """The people behind one number of an answer. `questions` makes the question again, such as `trend_request`."""
        request = questions.people_request(self._project_id, question, cell, page_size, page_token)
        return self._ask(self._analyses.ListPeopleBehind, request)

    def event_names(self, *, search: str = "", limit: int = 100) -> ListEventNamesResponse:
        """Which events there are, the most frequent first."""
        request = ListEventNamesRequest(project_id=self._project_id, search=search, limit=limit)
        return self._ask(self._analyses.ListEventNames, request)

    def properties(
        self, *, names: str | Iterable[str] = (), since: datetime | None = None, search: str = "", limit: int = 100
    ) -> ListPropertiesResponse:
        """Which properties events have, by default those of the last 30 days; the most frequent first."""
        request = questions.properties_request(self._project_id, names, since, search, limit)
        return self._ask(self._analyses.ListProperties, request)

    def property_values(
        self,
        property: str,  # noqa: A002 - its name in the API
        *,
        names: str | Iterable[str] = (),
        since: datetime | None = None,
        search: str = "",
        limit: int = 100,
    ) -> ListPropertyValuesResponse:
        """Which values a property has, by default those of the last 30 days; the most frequent first."""
        request = questions.values_request(self._project_id, property, names, since, search, limit)
        return self._ask(self._analyses.ListPropertyValues, request)

    @abstractmethod
    def _ask(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """The answer, with as many attempts as the retry policy makes."""

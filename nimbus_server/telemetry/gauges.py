"""What can be read off at any moment, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/."""

import asyncio
from collections.abc import Iterable
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nimbus_server.consumers.store import ConsumerStore, Lag
from nimbus_server.errors import NimbusError, StartupError
from nimbus_server.segments.store import SegmentStore, Status

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 5.0


class Gauges(Collector):
    """The lag of consumers and of segments, the same in every process. Call `run` for as long as it serves."""

    def __init__(self, consumers: ConsumerStore, segments: SegmentStore) -> None:
        self._consumers = consumers
        self._segments = segments
        self._lags: list[Lag] = []
        self._statuses: list[Status] = []
        self._server: WSGIServer | None = None

    def serve(self, address: str, port: int) -> None:
        """Answer HTTP there, in a thread. Raises StartupError where the address is taken."""
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(port, address, registry)
        except OSError as error:
            raise StartupError(
                f"Nimbus can't show its metrics on {address}:{port}: {error.strerror}. Set another NIMBUS_METRICS_PORT."
            ) from None

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    async def run(self) -> None:
        """Keep what is shown fresh, until cancelled."""
        while True:
            try:
                self._lags = await self._consumers.lags()
                self._statuses = await self._segments.status()
            except NimbusError:
                self._lags, self._statuses = [], []  # the database is away: better no lag than an old one
            except Exception:
                log.exception("lags could not be read")
            await asyncio.sleep(REFRESH_SECONDS)

    def collect(self) -> Iterable[Metric]:
        """What is shown."""
        labels = ("project_id", "consumer")
        lag = GaugeMetricFamily("nimbus_consumer_lag_events", "Events behind the end of the log.", labels=labels)
        active = GaugeMetricFamily("nimbus_consumer_active", "1 while the consumer has a stream open.", labels=labels)
        for one in self._lags:
            lag.add_metric((str(one.project_id), one.name), one.events)
            active.add_metric((str(one.project_id), one.name), one.active)
        yield lag
        yield active
        yield from self._of_segments()

    def _of_segments(self) -> Iterable[Metric]:
        labels = ("project_id",)
        lag = GaugeMetricFamily("nimbus_segments_lag_events", "Events in no segment yet.", labels=labels)
        files = GaugeMetricFamily("nimbus_segments_files", "Live segments.", labels=labels)
        size = GaugeMetricFamily("nimbus_segments_bytes", "Bytes of live segments.", labels=labels)
        for one in self._statuses:
            project = (str(one.project_id),)
            lag.add_metric(project, one.lag)
            files.add_metric(project, one.files)
            size.add_metric(project, one.bytes)
        yield lag
        yield files
        yield size

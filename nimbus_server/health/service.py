"""HealthService: probes over HTTP."""

import time

from nimbus.v1 import health_service_pb2 as pb
from nimbus_server.errors import NimbusError, Reason
from nimbus_server.health.store import HealthStore
from nimbus_server.version import VERSION

OK = "ok"
FAILING = "failing"
READ_ONLY = "The database takes no writes: it is a standby, or set read-only."


class HealthService:
    """Implements nimbus.v1.HealthService. Errors are those that the proto names for each RPC."""

    def __init__(self, store: HealthStore, app_name: str) -> None:
        self._store = store
        self._app_name = app_name
        self._started = time.monotonic()

    async def CheckLiveness(self, _request: pb.CheckLivenessRequest) -> pb.CheckLivenessResponse:
        return pb.CheckLivenessResponse(status=OK)

    async def CheckReadiness(self, _request: pb.CheckReadinessRequest) -> pb.CheckReadinessResponse:
        missing = await self._store.missing_migrations()
        if missing:
            raise NimbusError(Reason.STORAGE_UNAVAILABLE, _hint(missing), retry_after_seconds=5.0)
        if not await self._store.is_writable():
            raise NimbusError(Reason.STORAGE_UNAVAILABLE, READ_ONLY, retry_after_seconds=5.0)
        return pb.CheckReadinessResponse(status=OK)

    async def GetHealthDetails(self, _request: pb.GetHealthDetailsRequest) -> pb.GetHealthDetailsResponse:
        started = time.perf_counter()
        try:
            missing = await self._store.missing_migrations()
            writable = await self._store.is_writable()
            database = pb.HealthCheck(
                name="database", status=OK if writable else FAILING, hint="" if writable else READ_ONLY
            )
            schema = pb.HealthCheck(name="schema", status=FAILING if missing else OK, hint=_hint(missing))
        except NimbusError as error:
            database = pb.HealthCheck(name="database", status=FAILING, hint=error.message)
            schema = pb.HealthCheck(name="schema", status=FAILING, hint="Unknown while the database is away.")
        database.latency_ms = schema.latency_ms = round((time.perf_counter() - started) * 1000, 3)
        checks = [database, schema]
        return pb.GetHealthDetailsResponse(
            status=OK if all(check.status == OK for check in checks) else FAILING,
            name=self._app_name,
            version=VERSION,
            uptime_seconds=int(time.monotonic() - self._started),
            checks=checks,
        )


def _hint(missing: list[str]) -> str:
    return f"The database lacks {', '.join(missing)}: run `nimbus migrate`." if missing else ""

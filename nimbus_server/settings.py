"""The `NIMBUS_*` environment variables as one frozen object."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nimbus_server.errors import StartupError

PREFIX = "NIMBUS_"
SECRET_BYTES_MIN = 32
# Parts of the secrets that the documentation shows.
EXAMPLE_SECRETS = ("secret-key", "secret-jwt-key")

# For commands that call a Nimbus, and no settings of one.
CREDENTIALS = frozenset({"NIMBUS_BENCH_SECRET", "NIMBUS_TAIL_SECRET", "NIMBUS_TOKEN"})

StringList = Annotated[tuple[str, ...], NoDecode]


class Environment(StrEnum):
    """Where this server runs; `production` refuses to start without secrets of its own."""

    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """What is in force. Each field is the variable of the same name in capitals with `NIMBUS_` before it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    app_name: str = Field("Nimbus API", description="Name of this installation, shown by /health/detailed")
    environment: Environment = Field(
        Environment.DEVELOPMENT, description="development, test or production; production refuses weak secrets"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged")

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL to use; `nimbus up` runs its own where this is unset"
    )
    db_pool_size: int = Field(10, ge=1, le=1000, description="Connections that each worker keeps open")
    db_max_overflow: int = Field(20, ge=0, le=1000, description="Connections that each worker may open beyond those")
    db_echo: bool = Field(False, description="Log every SQL statement, without its parameters")

    redis_url: SecretStr | None = Field(
        None, description="Redis or Valkey that carries wake-ups of streams between workers; unset, PostgreSQL does"
    )
    redis_pool_size: int = Field(10, ge=1, le=1000, description="Connections to it that each worker may open")

    jwt_secret: SecretStr | None = Field(
        None, description="Signs the tokens of people, 32 bytes or more; `nimbus up` makes and keeps one where unset"
    )
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = Field("HS256", description="How tokens are signed")
    jwt_access_ttl_seconds: int = Field(3600, ge=1, le=86_400, description="Life of an access token")
    jwt_refresh_ttl_seconds: int = Field(604_800, ge=1, le=31_536_000, description="Life of a refresh token")
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Fernet keys that encrypt API secrets at rest, newest first, separated by commas"
    )
    bcrypt_cost: int = Field(12, ge=4, le=16, description="Work factor of password hashes; production wants 10 or more")

    allowed_origins: StringList = Field(
        (), description="Origins that browsers may call from, as a JSON array or separated by commas"
    )
    rate_limit_enabled: bool | None = Field(
        None, description="Limit requests per client address; unset, it is on in production only"
    )
    rate_limit_per_minute: int = Field(
        120, ge=1, le=10_000_000, description="Requests a minute and address; event ingestion may do twice as many"
    )

    trusted_proxies: int = Field(
        0, ge=0, le=10, description="Proxies in front that append the client's address to X-Forwarded-For"
    )

    bind_address: str = Field("127.0.0.1", description="Address that both ports listen on")
    http_port: int = Field(8000, ge=0, le=65_535, description="Envoy: REST, gRPC, gRPC-web and /docs")
    grpc_port: int = Field(50_051, ge=0, le=65_535, description="Native gRPC, straight to the workers")
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Prometheus' way to the metrics, http://.../metrics; unset, there is none"
    )
    data_dir: Path = Field(Path(".nimbus"), description="Where `nimbus up` keeps its database, secrets and logs")
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, le=256, description="Worker processes; one a core"
    )
    analyst: bool = Field(True, description="Whether `nimbus up` runs an analyst, which answers questions")
    analyst_socket: Path | None = Field(
        None, description="Socket of a `nimbus analyst` that answers questions; `nimbus up` sets it for its own"
    )
    analyst_memory: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,8}(MB|GB)$",
        description="Memory for questions, such as 4GB; unset, a quarter of what there is, at least 512MB",
    )
    retention_days: int | None = Field(
        None, ge=1, le=36_500, description="Age at which events are dropped, by months; counts stay. Unset, never"
    )
    request_timeout_seconds: float = Field(
        15.0, gt=0, le=600, description="Time that the edge gives a call before it answers 504"
    )
    drain_seconds: float = Field(10.0, ge=0, le=600, description="Time that calls in flight get when a server stops")

    @field_validator("database_url", mode="before")
    @classmethod
    def _plain_postgresql_scheme(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value.strip().replace("postgresql+asyncpg://", "postgresql://", 1) or None
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_has_a_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("it begins with redis://, rediss:// or unix://")
        return value

    @field_validator(
        "jwt_secret", "retention_days", "redis_url", "metrics_port", "analyst_socket", "analyst_memory", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("allowed_origins", "secret_keys", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return (
            orjson.loads(value)
            if value.lstrip().startswith("[")
            else [v.strip() for v in value.split(",") if v.strip()]
        )

    @property
    def production(self) -> bool:
        """Whether this server refuses what only a trial may do."""
        return self.environment is Environment.PRODUCTION

    @property
    def rate_limited(self) -> bool:
        """Whether the edge limits requests per address."""
        return self.production if self.rate_limit_enabled is None else self.rate_limit_enabled


def load(**overrides: object) -> Settings:
    """Read the environment; `overrides` (by field name, None for "not given") win over it.

    Raises StartupError that names the variable and says what is wrong with its value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # values are checked by the model
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise StartupError("Nimbus can't start with these settings. " + "; ".join(lines)) from None
    except orjson.JSONDecodeError as error:
        raise StartupError(f"Nimbus can't start: a list in the settings is not valid JSON ({error.msg}).") from None


def unknown_variables() -> list[str]:
    """Names of `NIMBUS_*` variables in the environment that mean nothing to this version."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CREDENTIALS
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def require_sendable(given: Mapping[str, str | None]) -> None:
    """Raise StartupError for what no address and no header can carry: anything but printable ASCII.

    `given` are values by the option or variable that they came in.
    """
    for name, value in given.items():
        if value is not None and not (value.isascii() and value.isprintable()):
            raise StartupError(f"{name} has a character that is not printable ASCII. Is it copied whole, and no more?")


def require_secrets(settings: Settings) -> None:
    """Raise StartupError unless the secrets that a server needs are there, and in production strong enough."""
    missing = [
        name
        for name, value in (
            ("NIMBUS_DATABASE_URL", settings.database_url),
            ("NIMBUS_JWT_SECRET", settings.jwt_secret),
            ("NIMBUS_SECRET_KEYS", settings.secret_keys),
        )
        if not value
    ]
    if missing:
        raise StartupError(
            f"{' and '.join(missing)} must be set for `nimbus serve`. "
            "`nimbus up` makes them for you; `nimbus config --new-secrets` prints fresh ones."
        )
    if not settings.production or settings.jwt_secret is None:
        return
    secret = settings.jwt_secret.get_secret_value()
    if len(secret.encode()) < SECRET_BYTES_MIN or len(set(secret)) < 10 or any(e in secret for e in EXAMPLE_SECRETS):
        raise StartupError(
            f"NIMBUS_JWT_SECRET is too short or a well-known example: production wants at least {SECRET_BYTES_MIN} "
            "random bytes. `nimbus config --new-secrets` prints one."
        )
    if settings.bcrypt_cost < 10:
        raise StartupError("NIMBUS_BCRYPT_COST is under 10, which production refuses: unset it, or raise it.")

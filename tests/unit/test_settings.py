"""Settings: the documented variables mean what the document says, and secrets stay secret."""

import os

import pytest

from nimbus_server.errors import StartupError
from nimbus_server.settings import Settings, load, require_secrets, unknown_variables

# As documented, but for the variables of Redis, which this version does not use.
DOCUMENTED = {
    "NIMBUS_APP_NAME": ("Nimbus API", "Nimbus API"),
    "NIMBUS_ENVIRONMENT": ("production", "production"),
    "NIMBUS_LOG_LEVEL": ("INFO", "INFO"),
    "NIMBUS_DATABASE_URL": (
        "postgresql+asyncpg://user:pass@host:5432/nimbus",
        "postgresql://user:pass@host:5432/nimbus",
    ),
    "NIMBUS_DB_POOL_SIZE": ("10", 10),
    "NIMBUS_DB_MAX_OVERFLOW": ("20", 20),
    "NIMBUS_DB_ECHO": ("true", True),
    "NIMBUS_JWT_SECRET": ("your-secret-key-here", "your-secret-key-here"),
    "NIMBUS_JWT_ALGORITHM": ("HS256", "HS256"),
    "NIMBUS_JWT_ACCESS_TTL_SECONDS": ("3600", 3600),
    "NIMBUS_JWT_REFRESH_TTL_SECONDS": ("604800", 604_800),
    "NIMBUS_ALLOWED_ORIGINS": (
        '["http://localhost:3000","https://yourdomain.com"]',
        ("http://localhost:3000", "https://yourdomain.com"),
    ),
    "NIMBUS_RATE_LIMIT_ENABLED": ("true", True),
    "NIMBUS_RATE_LIMIT_PER_MINUTE": ("120", 120),
}
STRONG = {
    "environment": "production",
    "database_url": "postgresql://host/nimbus",
    "jwt_secret": "hQ3v9-Zt_4xM7pLw2Kd8Rb5Yc1Nf6Gs0Ju",
    "secret_keys": "V0RNakZQb2x4bVh3dW5vV2hKc3pHa3FZcDB5bTRlZ0E=",
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NIMBUS_")]:
        monkeypatch.delenv(name)


def in_force(settings: Settings, variable: str) -> object:
    value = getattr(settings, variable.removeprefix("NIMBUS_").lower())
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def test_the_documented_variables_mean_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (text, _) in DOCUMENTED.items():
        monkeypatch.setenv(name, text)
    settings = load()
    assert {name: in_force(settings, name) for name in DOCUMENTED} == {n: value for n, (_, value) in DOCUMENTED.items()}
    assert unknown_variables() == []


def test_variables_of_other_versions_are_told_and_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMBUS_S3_BUCKET", "events")
    monkeypatch.setenv("NIMBUS_JWT_SECRT", "typo")
    assert load() == load()
    assert unknown_variables() == ["NIMBUS_JWT_SECRT", "NIMBUS_S3_BUCKET"]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NIMBUS_ENVIRONMENT", "prod"),
        ("NIMBUS_ANALYST", "perhaps"),
        ("NIMBUS_ANALYST_MEMORY", "0GB"),
        ("NIMBUS_ANALYST_MEMORY", "4 GB"),
        ("NIMBUS_ANALYST_MEMORY", "1TB"),
        ("NIMBUS_LOG_LEVEL", "loud"),
        ("NIMBUS_DB_POOL_SIZE", "0"),
        ("NIMBUS_DB_POOL_SIZE", "many"),
        ("NIMBUS_DB_MAX_OVERFLOW", "-1"),
        ("NIMBUS_DB_ECHO", "perhaps"),
        ("NIMBUS_JWT_ALGORITHM", "none"),
        ("NIMBUS_JWT_ALGORITHM", "RS256"),
        ("NIMBUS_JWT_ACCESS_TTL_SECONDS", "0"),
        ("NIMBUS_JWT_REFRESH_TTL_SECONDS", "1e9"),
        ("NIMBUS_ALLOWED_ORIGINS", '["http://localhost:3000"'),
        ("NIMBUS_ALLOWED_ORIGINS", "[1]"),
        ("NIMBUS_SECRET_KEYS", '["hunter2",'),
        ("NIMBUS_SECRET_KEYS", '[["hunter2"]]'),
        ("NIMBUS_RATE_LIMIT_ENABLED", "sometimes"),
        ("NIMBUS_RATE_LIMIT_PER_MINUTE", "0"),
        ("NIMBUS_BCRYPT_COST", "3"),
        ("NIMBUS_HTTP_PORT", "65536"),
        ("NIMBUS_WORKERS", "0"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(StartupError, match=f"{variable}: ") as failed:
        load()
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize("text", ['["a","b"]', ' ["a", "b"]', "a,b", " a , b ,"])
def test_a_list_is_a_json_array_or_separated_by_commas(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMBUS_ALLOWED_ORIGINS", text)
    monkeypatch.setenv("NIMBUS_SECRET_KEYS", text)
    settings = load()
    assert settings.allowed_origins == ("a", "b")
    assert [key.get_secret_value() for key in settings.secret_keys] == ["a", "b"]


def test_an_empty_variable_is_an_unset_one_where_a_secret_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIMBUS_DATABASE_URL", "NIMBUS_JWT_SECRET", "NIMBUS_SECRET_KEYS", "NIMBUS_ALLOWED_ORIGINS"):
        monkeypatch.setenv(name, "")
    settings = load()
    assert (settings.database_url, settings.jwt_secret, settings.secret_keys, settings.allowed_origins) == (
        None,
        None,
        (),
        (),
    )


def test_secrets_never_show() -> None:
    settings = load(database_url="postgresql://u:hunter2@h/d", jwt_secret="hunter2" * 8, secret_keys="hunter2,hunter2")
    shown = repr(settings) + str(settings) + f"{settings}" + settings.model_dump_json() + repr(settings.model_dump())
    assert "hunter2" not in shown


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().jwt_algorithm = "HS512"


def test_rate_limits_are_on_in_production_unless_said_otherwise() -> None:
    limited = [
        load(environment=e, rate_limit_enabled=r).rate_limited
        for e in ("production", "test")
        for r in (None, True, False)
    ]
    assert limited == [True, True, False, False, True, False]


@pytest.mark.parametrize("name", ["database_url", "jwt_secret", "secret_keys"])
def test_a_server_does_not_start_without_its_secrets(name: str) -> None:
    with pytest.raises(StartupError, match=f"NIMBUS_{name.upper()} must be set"):
        require_secrets(load(**{**STRONG, "environment": "development", name: None}))


@pytest.mark.parametrize(
    ("name", "weak"),
    [
        ("jwt_secret", "hQ3v9-Zt_4xM7pLw2Kd8Rb5Yc1Nf6Gs"),
        ("jwt_secret", "x" * 64),
        ("jwt_secret", "abcdefgh" * 8),
        ("jwt_secret", "your-secret-key-here-and-32-bytes-long"),
        ("jwt_secret", "your-super-secret-jwt-key-minimum-32-characters-long"),
        ("bcrypt_cost", 9),
    ],
)
def test_production_refuses_what_is_weak_or_an_example_and_says_which(name: str, weak: object) -> None:
    settings = load(**{**STRONG, name: weak})
    with pytest.raises(StartupError, match=f"NIMBUS_{name.upper()} is") as refused:
        require_secrets(settings)
    assert name == "bcrypt_cost" or str(weak) not in str(refused.value)
    require_secrets(load(**{**STRONG, "environment": "development", name: weak}))


def test_production_starts_with_strong_secrets() -> None:
    require_secrets(load(**STRONG))

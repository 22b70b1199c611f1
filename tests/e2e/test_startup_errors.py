"""What can go wrong at a start is one clear sentence and exit status 1."""

import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import grpc
import psycopg
import pytest
from conftest import ENVIRONMENT, STOPS_AT_ONCE, Stack, new_account
from cryptography.fernet import Fernet

from nimbus.v1 import auth_service_pb2, auth_service_pb2_grpc, health_service_pb2, health_service_pb2_grpc


def nimbus(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    return subprocess.run(
        [sys.executable, "-m", "nimbus_server", *arguments],
        env={**clean, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(ran: subprocess.CompletedProcess[str], *words: str) -> bool:
    said = ran.stderr + ran.stdout
    assert ran.returncode == 1, said
    assert "Traceback" not in said
    assert all(word in said for word in words), said
    return True


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
def test_a_taken_port(scratch: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = "--grpc-port" if option == "--http-port" else "--http-port"
        ran = nimbus("up", "--data-dir", str(scratch / "data"), option, port, other, "0")
    assert refused(ran, port, option)


def test_a_taken_port_for_metrics(scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = ("--http-port", "0", "--grpc-port", "0")
        ran = nimbus("up", "--data-dir", str(scratch / "data"), *ports, NIMBUS_METRICS_PORT=port)
        assert refused(ran, port, "NIMBUS_METRICS_PORT")
        secrets = {"NIMBUS_JWT_SECRET": "x" * 32, "NIMBUS_SECRET_KEYS": Fernet.generate_key().decode()}
        database = {"NIMBUS_DATABASE_URL": "postgresql:///none?host=/nowhere"}
        ran = nimbus("serve", "--socket", str(scratch / "s"), NIMBUS_METRICS_PORT=port, **secrets, **database)
    assert refused(ran, port, "NIMBUS_METRICS_PORT")


def test_a_second_instance_on_the_same_folder(stack: Stack) -> None:
    ran = nimbus("up", "--data-dir", str(stack.data_dir), "--http-port", "0", "--grpc-port", "0")
    assert refused(ran, "Another Nimbus", str(stack.data_dir), "--data-dir")


def test_a_folder_that_can_not_be_made(scratch: Path) -> None:
    (scratch / "file").touch()
    ran = nimbus("up", "--data-dir", str(scratch / "file" / "data"), "--http-port", "0", "--grpc-port", "0")
    assert refused(ran, "--data-dir")


def test_a_setting_that_makes_no_sense() -> None:
    assert refused(nimbus("config", NIMBUS_HTTP_PORT="eighty"), "NIMBUS_HTTP_PORT")


def test_a_redis_that_has_no_such_address() -> None:
    assert refused(nimbus("config", NIMBUS_REDIS_URL="localhost:6379"), "NIMBUS_REDIS_URL", "redis://")


def test_a_server_without_secrets() -> None:
    assert refused(nimbus("serve", "--grpc-port", "0"), "NIMBUS_JWT_SECRET", "NIMBUS_SECRET_KEYS")


def test_a_production_server_with_a_weak_secret(stack: Stack) -> None:
    environment = {
        "NIMBUS_ENVIRONMENT": "production",
        "NIMBUS_DATABASE_URL": stack.dsn(),
        "NIMBUS_JWT_SECRET": "your-super-secret-jwt-key-minimum-32-characters-long",
        "NIMBUS_SECRET_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    assert refused(nimbus("serve", "--grpc-port", "0", **environment), "NIMBUS_JWT_SECRET")


def test_a_database_that_is_not_there(scratch: Path) -> None:
    ran = nimbus("migrate", NIMBUS_DATABASE_URL=f"postgresql:///nimbus?host={scratch}")
    assert refused(ran, "database")


def test_status_tells_which_migrations_a_database_lacks(stack: Stack) -> None:
    shown = nimbus("migrate", "--status", NIMBUS_DATABASE_URL=stack.dsn("postgres"))
    assert shown.returncode == 0
    assert "MISSING  0001_initial" in shown.stdout
    applied = nimbus("migrate", "--status", NIMBUS_DATABASE_URL=stack.dsn())
    assert "MISSING" not in applied.stdout


def test_a_server_on_an_older_schema_is_alive_but_not_ready_and_says_why(stack: Stack, scratch: Path) -> None:
    secrets = dict(line.split("=", 1) for line in nimbus("config", "--new-secrets").stdout.split())
    server = subprocess.Popen(
        [sys.executable, "-m", "nimbus_server", "serve", "--socket", str(scratch / "worker.sock")],
        env={**os.environ, **ENVIRONMENT, **STOPS_AT_ONCE, **secrets, "NIMBUS_DATABASE_URL": stack.dsn("postgres")},
        stderr=subprocess.DEVNULL,
    )
    try:
        with grpc.insecure_channel(f"unix:{scratch}/worker.sock") as channel:
            health = health_service_pb2_grpc.HealthServiceStub(channel)
            alive = health.CheckLiveness(health_service_pb2.CheckLivenessRequest(), wait_for_ready=True, timeout=20)
            assert alive.status == "ok"
            with pytest.raises(grpc.RpcError) as refusal:
                health.CheckReadiness(health_service_pb2.CheckReadinessRequest(), timeout=20)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "0001_initial" in refusal.value.details()
        assert "nimbus migrate" in refusal.value.details()
    finally:
        server.terminate()
        assert server.wait(20) == 0


def test_a_server_whose_database_turns_out_to_be_of_another_encoding_is_not_ready_and_says_why(
    stack: Stack, scratch: Path
) -> None:
    name = f"later_{uuid.uuid4().hex[:8]}"
    secrets = dict(line.split("=", 1) for line in nimbus("config", "--new-secrets").stdout.split())
    server = subprocess.Popen(
        [sys.executable, "-m", "nimbus_server", "serve", "--socket", str(scratch / "worker.sock")],
        env={**os.environ, **ENVIRONMENT, **STOPS_AT_ONCE, **secrets, "NIMBUS_DATABASE_URL": stack.dsn(name)},
        stderr=subprocess.DEVNULL,
    )
    try:
        with grpc.insecure_channel(f"unix:{scratch}/worker.sock") as channel:
            health = health_service_pb2_grpc.HealthServiceStub(channel)
            health.CheckLiveness(health_service_pb2.CheckLivenessRequest(), wait_for_ready=True, timeout=20)
            with psycopg.connect(stack.dsn("postgres"), autocommit=True) as connection:
                connection.execute(
                    f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
                )
            said = ""
            while "encoding" not in said:
                with pytest.raises(grpc.RpcError) as refusal:
                    health.CheckReadiness(health_service_pb2.CheckReadinessRequest(), timeout=20)
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
                said = refusal.value.details()
            assert f"{name} has the encoding LATIN1" in said
            details = health.GetHealthDetails(health_service_pb2.GetHealthDetailsRequest(), timeout=20)
            assert said in {check.hint for check in details.checks}
            accounts = auth_service_pb2_grpc.AuthServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refusal:
                accounts.Login(auth_service_pb2.LoginRequest(email="a@example.com", password="x"), timeout=20)
            assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.UNAVAILABLE, said)
    finally:
        server.terminate()
        assert server.wait(20) == 0


def test_variables_of_libpq_say_nothing_about_the_database_that_nimbus_runs_itself(scratch: Path) -> None:
    elsewhere = {
        "PGHOSTADDR": "192.0.2.1",
        "PGSERVICE": "nowhere",
        "PGSSLMODE": "verify-full",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGOPTIONS": "-c search_path=nowhere",
        "PGTZ": "Nowhere/Land",
    }
    own = Stack(scratch / "data", {**STOPS_AT_ONCE, **elsewhere, "NIMBUS_WORKERS": "1"}).start()
    try:
        account = new_account(own)
        assert account.project_id in nimbus("tail", "--data-dir", str(own.data_dir), **elsewhere).stderr
        file = scratch / "history.jsonl"
        file.write_text('{"name": "a", "ts": "2026-01-02T00:00:00Z"}')
        ran = nimbus("import", str(file), "--project", account.project_id, "--data-dir", str(own.data_dir), **elsewhere)
        assert "1 events stored" in ran.stdout, ran
    finally:
        own.stop()


def test_config_shows_what_is_in_force_and_no_secret() -> None:
    shown = nimbus(
        "config", NIMBUS_JWT_SECRET="hush-hush", NIMBUS_SECRET_KEYS="psst", NIMBUS_HTTP_PORT="8123", NIMBUS_NONSENSE="1"
    )
    assert shown.returncode == 0
    assert "8123" in shown.stdout
    assert "hush" not in shown.stdout + shown.stderr
    assert "psst" not in shown.stdout + shown.stderr
    assert "NIMBUS_NONSENSE" in shown.stderr

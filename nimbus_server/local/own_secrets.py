"""The secrets that `nimbus up` makes for itself where none are given."""

import json
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr

from nimbus_server.errors import StartupError
from nimbus_server.local.folder import sync_folder
from nimbus_server.settings import Settings


def fill_in(settings: Settings, path: Path) -> tuple[Settings, bool]:
    """Settings with a JWT secret and a Fernet key: those given, else those kept in `path`, else new ones kept there.

    Says also whether any were newly made. Raises StartupError where the file can't be read or written.
    """
    if settings.jwt_secret is not None and settings.secret_keys:
        return settings, False
    kept = _read(path)
    made = dict(kept)
    if settings.jwt_secret is None:
        made.setdefault("jwt_secret", secrets.token_urlsafe(48))
    if not settings.secret_keys:
        made.setdefault("secret_key", Fernet.generate_key().decode())
    if made != kept:
        _write(path, made)
    filled = settings.model_copy(
        update={
            "jwt_secret": settings.jwt_secret or SecretStr(made["jwt_secret"]),
            "secret_keys": settings.secret_keys or (SecretStr(made["secret_key"]),),
        }
    )
    return filled, made != kept


def kept_secret_keys(path: Path) -> tuple[SecretStr, ...]:
    """The Fernet keys kept in `path`, if any, and nothing made. Raises StartupError where the file can't be read."""
    key = _read(path).get("secret_key")
    return () if key is None else (SecretStr(key),)


def _read(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_bytes())
        if not isinstance(kept, dict) or not all(isinstance(v, str) and v for v in kept.values()):
            raise ValueError
        path.chmod(0o600)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StartupError(f"The secrets in {path} can't be read ({error.strerror}).") from None
    except ValueError:
        raise StartupError(
            f"{path} holds no valid secrets. Restore it from a backup: without it, API keys in the database are lost."
        ) from None
    return kept


def _write(path: Path, content: dict[str, str]) -> None:
    """Replace the file at once, so that no crash leaves half of it; no other user could read it at any moment."""
    new = path.with_suffix(".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(json.dumps(content, indent=2).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StartupError(f"The secrets can't be kept in {path} ({error.strerror}).") from None

"""Renders the one Envoy configuration from the templates in `envoy/`."""

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jinja2

from nimbus_server.errors import NimbusError, Reason, StartupError
from nimbus_server.rpc.status import status_of
from nimbus_server.settings import Settings

SERVICES = (
    "AuthService",
    "ProjectService",
    "EventService",
    "StreamService",
    "MetricsService",
    "AnalysisService",
    "HealthService",
)
# A little more than the workers give a question at most.
QUESTION_SECONDS_MAX = 125
# A full batch of 1,000 events with 10 KB of props each, and what goes with them.
BODY_BYTES_MAX = 16 * 1024 * 1024
# What a worker may send: a page of 200 events with 10 KB of props, which a Struct may triple.
RESPONSE_BYTES_MAX = 32 * 1024 * 1024
HEADERS_MAX = 100
# With the path.
HEADER_BYTES_MAX = 60 * 1024


@dataclass(frozen=True, slots=True)
class LocalReply:
    """An answer that Envoy gives by itself; `code` is the number of a google.rpc.Code.

    `has_cause` says that another sentence follows the message: what Envoy, or a route, says of the cause.
    """

    status: int
    code: int
    reason: Reason
    message: str
    retry_after: int | None = None
    has_cause: bool = False

    def grpc_message(self, cause: str) -> str:
        """The message with its cause, if any. ASCII without a percent sign: that is as `grpc-message` has it."""
        return f"{self.message} {cause}".rstrip()

    def grpc_details(self, cause: str) -> str:
        """The value of `grpc-status-details-bin`: google.rpc.Status in base64 without padding."""
        status = status_of(NimbusError(self.reason, self.grpc_message(cause), retry_after_seconds=self.retry_after))
        return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


LOCAL_REPLIES = (
    LocalReply(400, 3, Reason.REQUEST_UNPARSABLE, "The request can't be read.", has_cause=True),
    LocalReply(
        403,
        3,
        Reason.REQUEST_UNPARSABLE,
        "WebSockets are opened below /ws/ alone, by a GET without a body, from pages of allowed origins.",
    ),
    LocalReply(404, 5, Reason.ROUTE_NOT_FOUND, "This API has no such route. /docs lists them."),
    LocalReply(408, 3, Reason.REQUEST_UNPARSABLE, "The request did not arrive whole in time."),
    LocalReply(
        413, 8, Reason.BODY_TOO_LARGE, f"The body is larger than {BODY_BYTES_MAX} bytes. Send fewer events a request."
    ),
    LocalReply(415, 3, Reason.REQUEST_UNPARSABLE, "The body must be application/json."),
    LocalReply(
        429,
        8,
        Reason.RATE_LIMITED,
        "Too many requests from this address. Wait a minute, or send more events a request.",
        60,
    ),
    LocalReply(
        431, 3, Reason.REQUEST_UNPARSABLE, "The path and headers are larger than 60 KB, or more than 100. Send less."
    ),
    LocalReply(501, 3, Reason.REQUEST_UNPARSABLE, "The only transfer-encoding that this API takes is chunked."),
    LocalReply(
        502,
        14,
        Reason.WORKER_UNAVAILABLE,
        "The worker went away during the call. Try again: events with an idempotency_key are never stored twice.",
        1,
    ),
    LocalReply(
        503,
        14,
        Reason.WORKER_UNAVAILABLE,
        "No worker can take the call right now. Try again: events with an idempotency_key are never stored twice.",
        1,
    ),
    LocalReply(
        504,
        4,
        Reason.DEADLINE_EXCEEDED,
        "The call took longer than it was given. Try again: events with an idempotency_key are never stored twice.",
    ),
)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets: those that workers listen on, for calls and for WebSockets, and Envoy's own for its admin page."""

    workers: Sequence[Path]
    websockets: Sequence[Path]
    admin: Path


def render(settings: Settings, sockets: Sockets) -> str:
    """The configuration as YAML.

    Raises StartupError where a part of the installation is missing, or a socket's path is not UTF-8.
    """
    # YAML, not HTML: values go through `tojson`.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_part("envoy.yaml.j2").parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701
        keep_trailing_newline=True,
    )
    swagger = _swagger_ui()
    return environment.get_template("envoy.yaml.j2").render(
        admin_socket=_path(sockets.admin),
        sockets=[_path(socket) for socket in sockets.workers],
        websocket_sockets=[_path(socket) for socket in sockets.websockets],
        headers_max=HEADERS_MAX,
        header_bytes_max=HEADER_BYTES_MAX,
        websocket_origins=_websocket_origins(settings.allowed_origins),
        all_but_websocket=_all_but("websocket"),
        bind_address=settings.bind_address,
        http_port=settings.http_port,
        body_bytes_max=BODY_BYTES_MAX,
        response_bytes_max=RESPONSE_BYTES_MAX,
        local_replies=LOCAL_REPLIES,
        allowed_origins=settings.allowed_origins,
        trusted_proxies=settings.trusted_proxies,
        rate_limited=settings.rate_limited,
        rate_limit_per_minute=settings.rate_limit_per_minute,
        request_timeout_seconds=settings.request_timeout_seconds,
        question_seconds_max=QUESTION_SECONDS_MAX,
        descriptors=_generated("descriptors.binpb"),
        services=[f"nimbus.v1.{name}" for name in SERVICES],
        normalize_path=_part("normalize_path.lua"),
        docs={
            "page": _part("docs.html"),
            "openapi": _generated("openapi.json"),
            "style": swagger / "swagger-ui.css",
            "script": swagger / "swagger-ui-bundle.js",
        },
    )


def _path(socket: Path) -> str:
    try:
        return os.fsencode(socket.absolute()).decode()
    except UnicodeDecodeError:
        raise StartupError(f"The path {socket} is not UTF-8, as Envoy's configuration is. Choose another.") from None


def _websocket_origins(origins: Sequence[str]) -> str:
    """A regular expression for the origins whose pages may open WebSockets; empty where all may.

    It is what CORS is elsewhere: no browser asks for leave before it opens one.
    """
    if not origins or "*" in origins:
        return ""
    return "|".join(re.escape(origin) for origin in origins)


def _all_but(word: str) -> str:
    """A regular expression for all that is not `word`, in any case: Envoy's know no negation."""
    letters = [f"[{letter}{letter.upper()}]" for letter in word]
    others = [f"{''.join(letters[:index])}([^{letter[1:]}.*)?" for index, letter in enumerate(letters)]
    return "|".join([*others, f"{''.join(letters)}.+"])


def _part(name: str) -> Path:
    """A file of `envoy/`: inside the package in an installed wheel, at the top of a checkout otherwise."""
    package = Path(__file__).parents[1]
    for path in (package / "envoy" / name, package.parent / "envoy" / name):
        if path.is_file():
            return path
    raise StartupError(f"This installation of Nimbus lacks {name}. Install it again.")


def _generated(name: str) -> Path:
    # A namespace package: `files` would give a view that has no path.
    spec = find_spec("nimbus")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(location) / name).is_file():
            return path
    raise StartupError(f"This installation of Nimbus lacks {name}. Install it again, or run `make generate`.")


def _swagger_ui() -> Path:
    # Only its files are wanted: importing the package would pull in web frameworks.
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("This installation of Nimbus lacks swagger-ui-py. Install it again.")
    return Path(spec.submodule_search_locations[0]) / "static"

"""Structured logs: lines for people in a terminal, JSON everywhere else."""

import logging
import sys

import structlog

from nimbus_server.settings import Settings


def configure(settings: Settings) -> None:
    """Send the logs of this process to standard error, from `settings.log_level` up."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(() if pretty else (structlog.processors.dict_tracebacks,)),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The libraries' own loggers: psycopg's pool warns here of connections that it could not make.
    logging.basicConfig(stream=sys.stderr, level=max(logging.WARNING, logging.getLevelName(settings.log_level)))

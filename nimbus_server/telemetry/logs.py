"""Structured logs: lines for people in a terminal, JSON everywhere else."""

import logging
import sys

import structlog

from nimbus_server.settings import Settings


def configure(settings: Settings) -> None:
    """Send the logs of this process, its libraries' included, to standard error, from `settings.log_level` up."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    pretty = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not pretty:
        shared.append(structlog.processors.dict_tracebacks)
    renderer = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # psycopg's pool warns here of connections that it could not make.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, level))

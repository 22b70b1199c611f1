"""Structured logs: lines for people in a terminal, JSON everywhere else."""

import logging
import sys

import structlog

from nimbus_server.settings import Settings

REPEAT_SECONDS = 30.0


class _NoBrokenStreams(logging.Filter):
    """Leaves out what gRPC logs, with a traceback, when a client goes away while something is on its way to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


class _SeldomTheSame(logging.Filter):
    """Of messages that are alike leaves out those within REPEAT_SECONDS: the pool tries to connect time and again."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        self._logged_at = {m: at for m, at in self._logged_at.items() if record.created - at < REPEAT_SECONDS}
        message = record.getMessage()
        if message in self._logged_at:
            return False
        self._logged_at[message] = record.created
        return True


def configure(settings: Settings) -> None:
    """Send the logs of this process, its libraries' included, to standard error, from `settings.log_level` up."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    pretty = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks without local variables: those hold passwords, tokens and other people's events.
    if not pretty:
        bare = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        shared.append(structlog.processors.ExceptionRenderer(bare))
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if pretty
        else structlog.processors.JSONRenderer()
    )
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
    handler.addFilter(_NoBrokenStreams())
    # psycopg's pool warns here of connections that it could not make.
    logging.getLogger("psycopg.pool").addFilter(_SeldomTheSame())
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, level))

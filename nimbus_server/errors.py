"""The errors of Nimbus. What each becomes over gRPC and REST stands in `rpc/status.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class StartupError(Exception):
    """A process can't start. The text is for the person who started it: one sentence, with what to do."""


class Reason(StrEnum):
    """Why a call or an event failed: the values of `ErrorReason` in error_reason.proto, without their prefix."""

    FIELD_INVALID = "FIELD_INVALID"
    FIELD_REQUIRED = "FIELD_REQUIRED"
    FIELD_TOO_LONG = "FIELD_TOO_LONG"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    REQUEST_UNPARSABLE = "REQUEST_UNPARSABLE"
    PASSWORD_WEAK = "PASSWORD_WEAK"
    BATCH_EMPTY = "BATCH_EMPTY"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    TS_OUT_OF_RANGE = "TS_OUT_OF_RANGE"
    PROPS_TOO_DEEP = "PROPS_TOO_DEEP"
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    SESSION_ENDED = "SESSION_ENDED"
    LOGIN_FAILED = "LOGIN_FAILED"
    API_KEY_UNKNOWN = "API_KEY_UNKNOWN"
    SIGNATURE_STALE = "SIGNATURE_STALE"
    SIGNATURE_MISMATCH = "SIGNATURE_MISMATCH"
    PROJECT_MISMATCH = "PROJECT_MISMATCH"
    PROJECT_NOT_FOUND = "PROJECT_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    CONSUMER_NOT_FOUND = "CONSUMER_NOT_FOUND"
    EMAIL_TAKEN = "EMAIL_TAKEN"
    CONSUMER_BUSY = "CONSUMER_BUSY"
    CONSUMER_TAKEN_OVER = "CONSUMER_TAKEN_OVER"
    POSITION_AHEAD = "POSITION_AHEAD"
    QUESTION_TOO_LARGE = "QUESTION_TOO_LARGE"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    WORKER_UNAVAILABLE = "WORKER_UNAVAILABLE"
    ANALYST_UNAVAILABLE = "ANALYST_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


def encodable(text: str) -> str:
    """The text with lone surrogates escaped: what a client sent may hold them, and no answer can."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that is wrong, by the name that the proto gives it, and one sentence about it."""

    field: str
    message: str


class NimbusError(Exception):
    """A call fails for `reason`. `message` reaches the client: it holds nothing internal."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = encodable(message)
        self.violations = violations
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds


def field_error(reason: Reason, field: str, message: str) -> NimbusError:
    """The error of one wrong field; `message` is a sentence that starts with the field's name."""
    return NimbusError(reason, message, violations=(Violation(encodable(field), encodable(message)),))


def project_not_found() -> NimbusError:
    """The same for a project that is not there and for one that is somebody else's."""
    return NimbusError(Reason.PROJECT_NOT_FOUND, "There is no such project, or it is not one of yours.")


def api_key_unknown() -> NimbusError:
    """No key in force has this id."""
    return NimbusError(Reason.API_KEY_UNKNOWN, "There is no such API key. It may be mistyped, or rotated away.")


def storage_unavailable() -> NimbusError:
    """The database is away, or can't take more."""
    return NimbusError(
        Reason.STORAGE_UNAVAILABLE,
        "The database can't take this right now. Try again: events with an idempotency_key are never stored twice.",
        retry_after_seconds=1.0,
    )


def worker_unavailable() -> NimbusError:
    """This worker stops."""
    return NimbusError(
        Reason.WORKER_UNAVAILABLE, "This worker is stopping. Connect again at once.", retry_after_seconds=0.1
    )


def overloaded() -> NimbusError:
    """As much work is waiting as may wait."""
    return NimbusError(
        Reason.OVERLOADED,
        "The server has as much work waiting as it takes. Nothing of this request was stored; retry in a moment.",
        retry_after_seconds=1.0,
    )


def deadline_exceeded(seconds: float) -> NimbusError:
    """A question took longer than it was given."""
    return NimbusError(
        Reason.DEADLINE_EXCEEDED,
        f"The question was stopped after {seconds:.3g} s. Ask for less, or give it more time.",
    )


def analyst_unavailable() -> NimbusError:
    """The process that answers questions is away, or went away over this one."""
    return NimbusError(
        Reason.ANALYST_UNAVAILABLE,
        "The process that answers questions is starting, or ended over this one. Ask again in a moment.",
        retry_after_seconds=1.0,
    )


def segment_missing() -> NimbusError:
    """The manifest names a file that is not in the folder of the analyst: the folder was lost, or is another one."""
    return NimbusError(
        Reason.ANALYST_UNAVAILABLE,
        "A file that the answer needs is missing on the server: run `nimbus segments rebuild` there.",
        retry_after_seconds=60.0,
    )


def too_many_questions() -> NimbusError:
    """As many questions run and wait as may."""
    return NimbusError(
        Reason.OVERLOADED,
        "As many questions are being answered, and waiting for that, as may be. Ask again in a moment.",
        retry_after_seconds=1.0,
    )


def question_too_large(what: str) -> NimbusError:
    """A question needs more than it may have: `what` is a sentence."""
    return NimbusError(
        Reason.QUESTION_TOO_LARGE, f"{what} Ask for a shorter range, fewer breakdowns or larger buckets."
    )


def position_ahead(position: int, last_seq: int) -> NimbusError:
    """The position lies beyond the end of the log."""
    return NimbusError(
        Reason.POSITION_AHEAD,
        f"The log ends at position {last_seq}: {position} lies beyond it. Is it another project's?",
        metadata={"last_seq": str(last_seq)},
    )


def consumer_not_found(name: str) -> NimbusError:
    """The project has no such consumer."""
    return NimbusError(Reason.CONSUMER_NOT_FOUND, f"The project has no consumer {name}.")

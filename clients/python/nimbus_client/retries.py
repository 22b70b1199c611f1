"""When a failed call is made again.

gRPC's own retries can't do it: they know neither `google.rpc.RetryInfo` nor a deadline per attempt, and repeat a
signature until it is stale. tenacity runs one policy for both clients.
"""

import random
import time
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_before_delay

from nimbus_client.errors import NimbusError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on, and how long to wait in between.

    An attempt is given `attempt_seconds`. After the nth failure the wait is random, between nothing and
    `first_wait_seconds` * 2^(n-1), at most `max_wait_seconds`, on top of what the server asked for. A wait that would
    end after `deadline_seconds`, counted from the start of the request, is not begun: the last error is raised.
    """

    deadline_seconds: float = 30.0
    attempt_seconds: float = 10.0
    first_wait_seconds: float = 0.1
    max_wait_seconds: float = 5.0

    def attempt_timeout(self, started: float, attempt_seconds: float | None = None) -> float:
        """Seconds for the next attempt of a request that began at `started` on the monotonic clock.

        At most `attempt_seconds`, by default the policy's.
        """
        longest = self.attempt_seconds if attempt_seconds is None else attempt_seconds
        return max(0.0, min(longest, started + self.deadline_seconds - time.monotonic()))

    def wait(self, state: RetryCallState) -> float:
        """Seconds to wait after the attempt that has just failed."""
        error = state.outcome.exception() if state.outcome else None
        return self.wait_after(state.attempt_number, error)

    def wait_after(self, failures: int, error: BaseException | None) -> float:
        """Seconds to wait after so many failures in a row, the last of them with `error`."""
        asked = error.retry_after_seconds if isinstance(error, NimbusError) else None
        # The doublings are bounded where a float ends.
        longest = min(self.max_wait_seconds, self.first_wait_seconds * 2.0 ** min(failures - 1, 100))
        return (asked or 0.0) + random.uniform(0.0, longest)  # noqa: S311 - spreads clients, hides nothing

    def options(self) -> dict[str, Any]:
        """The arguments of tenacity's `Retrying` and `AsyncRetrying`."""
        return {
            "retry": retry_if_exception(lambda error: isinstance(error, NimbusError) and error.transient),
            "wait": self.wait,
            "stop": stop_before_delay(self.deadline_seconds),
            "reraise": True,
        }

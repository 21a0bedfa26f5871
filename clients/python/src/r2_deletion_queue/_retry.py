"""When a request is sent again, and how long that waits."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import ApiError, ConnectionFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How patiently a call is carried through.

    The waits are drawn from 0 to a bound that doubles ("full jitter"), and never end before the server's `Retry-After`.
    """

    total: float = 120.0
    """Seconds after which nothing more is tried, counted from the beginning of the call; 0 for no second attempt."""
    base: float = 0.5
    """The first bound, in seconds."""
    cap: float = 8.0
    """The last bound, in seconds."""

    def pause(self, failure: ApiError | ConnectionFailed, *, attempt: int, elapsed: float, draw: float) -> float | None:
        """How many seconds to wait after an attempt that has failed; none to give up.

        `attempt` counts from 0, `elapsed` is since the beginning of the call, and `draw` is random, from 0 to 1.
        """
        if not failure.retryable:
            return None
        # The exponent is bounded, because a float is.
        pause = draw * min(self.cap, self.base * 2.0 ** min(attempt, 32))
        if isinstance(failure, ApiError) and failure.retry_after is not None:
            pause += failure.retry_after
        return pause if elapsed + pause < self.total else None

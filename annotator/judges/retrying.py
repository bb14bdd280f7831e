"""Trying a request again: when, how often, and after which pause. Shared by the judges that ask endpoints."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from annotator.judges import Pace, Unanswered, Usage
from annotator.judges.faults import Fault

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")


class TryAgain(Exception):
    """A fault that may pass."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


async def try_again(first: TryAgain, attempt: Callable[[], Awaitable[T]], pace: Pace, usage: Usage) -> T:
    """What `attempt` gives in the end, after it has failed once with `first`.

    tenacity comes in at the first failure only: it costs 0.1 ms a call, and most requests succeed at once.

    Raises:
        Unanswered: when the tries are used up; with `usage`. What `attempt` raises besides TryAgain.
    """
    import tenacity

    tries = Tries(pace)
    failed = [first]

    async def replayed() -> T:
        if failed:
            raise failed.pop()
        return await attempt()

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TryAgain), stop=tries.used_up, wait=tries.pause, reraise=True
    )
    try:
        return await retrying(replayed)
    except TryAgain as exhausted:
        fault = exhausted.fault
        raise Unanswered(fault.reason, fault.detail, http_status=fault.http_status, usage=usage) from None


class Tries:
    """When tenacity stops, and how long it waits: rate limits cost patience, other faults cost tries."""

    def __init__(self, pace: Pace) -> None:
        self._pace, self._faults = pace, 0

    def used_up(self, state: tenacity.RetryCallState) -> bool:
        """Called once after each failed try."""
        if _fault(state).action == "slow":
            return (state.seconds_since_start or 0.0) > self._pace.patience_s
        self._faults += 1
        return self._faults >= self._pace.attempts

    def pause(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try; a rate limit is waited out at the gate, together with everybody else."""
        fault = _fault(state)
        if fault.action == "slow":
            return 0.0
        ceiling = min(self._pace.longest_wait_s, self._pace.first_wait_s * 2 ** (self._faults - 1))
        return max(fault.retry_after_s or 0.0, random.uniform(0.5, 1.0) * ceiling)


def _fault(state: tenacity.RetryCallState) -> Fault:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TryAgain)
    return error.fault

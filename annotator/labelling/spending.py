"""Keeps a run within its budget without giving the sum away: what a record may take is reserved before it is asked for.

While there is too little left for one record more beside those in flight, the run waits for them to end, since most
take less than was reserved. It stops when nothing is in flight and the next record does not fit.
"""

from __future__ import annotations

import asyncio
import math

from annotator.budget import Budget, Price
from annotator.excerpt import token_estimate
from annotator.judges import Judge, Usage

_USUAL_OUTPUT = 120
_TOKENS_BEYOND_ESTIMATE = 1.5  # a foreign script or formulas, until the server has counted some records
_KNOWN_AFTER = 20
_GROWTH = 4  # of the output limit from one try to the next, when answers are cut short


def votes_of(judge: Judge) -> int:
    """How many requests a record takes: several if the judge, or the one that a cascade asks, is a panel."""
    return getattr(getattr(judge, "asked", judge), "votes", 1)


class Spending:
    """What a run has spent, what records in flight may take, and whether one more may go.

    A record gets reserved what the dearest of those that ended took, in relation to its size; until twenty have ended,
    all its tries at their output limits. An answer without counts is taken for an average one. So a limit is passed at
    most by what records in flight take beyond the dearest one before them, or, within the first twenty, by the re-asks
    of one record.

    Args:
        usage: what the run has spent; somebody else adds to it.
    """

    def __init__(self, judge: Judge, budget: Budget, price: Price | None, usage: Usage) -> None:
        self.stopped_by: str | None = None
        self._judge, self._budget, self._price, self._usage = judge, budget, price, usage
        self._limited = budget != Budget()
        self._asked = self._in_flight = self._ended = self._answered_estimate = 0
        self._reserved, self._uncounted = Usage(), Usage()
        self._freed = asyncio.Event()
        tries = 1 + judge.pace.reasks
        votes = votes_of(judge)
        self._most_input = votes * tries * _TOKENS_BEYOND_ESTIMATE  # of a record, as a multiple of its estimate
        self._most_output = votes * sum(judge.sampling.max_output_tokens * _GROWTH**number for number in range(tries))
        self._dearest_input, self._dearest_output = 1.0, 1

    async def reserve(self, user: str) -> Usage | None:
        """Wait until the record with this message may be asked for; what it got reserved, or None when the run stops.

        Whoever gets it calls `settle` with it.
        """
        if not self._limited:
            self._asked += 1
            return Usage()
        while self.stopped_by is None:
            estimate = self._judge.fixed_tokens + token_estimate(user)
            most = self._most(estimate)
            limit = self._exceeded(most)
            if limit is not None and not self._in_flight and self._ended < _KNOWN_AFTER:
                most = self._likely(estimate)
                limit = self._exceeded(most)
            if limit is None:
                self._asked += 1
                self._in_flight += 1
                self._reserved.add(most)
                return most
            if self._in_flight and not self._all_asked():
                self._freed.clear()
                await self._freed.wait()
            else:
                self.stop(limit)
        return None

    def settle(self, user: str, reserved: Usage, used: Usage, *, answered: bool) -> None:
        """A record has ended, with an answer or without; `used` is in the usage of the run by now."""
        if not self._limited:
            return
        self._in_flight -= 1
        self._reserved.input_tokens -= reserved.input_tokens
        self._reserved.output_tokens -= reserved.output_tokens
        if used.input_tokens:
            estimate = self._judge.fixed_tokens + token_estimate(user)
            self._ended += 1
            self._answered_estimate += estimate
            self._dearest_input = max(self._dearest_input, used.input_tokens / estimate)
            self._dearest_output = max(self._dearest_output, used.output_tokens)
            if self._ended >= _KNOWN_AFTER:
                self._most_input, self._most_output = self._dearest_input, self._dearest_output
        elif answered:  # by a server that does not count, or not always: the budget must end the run all the same
            self._uncounted.add(self._likely(self._judge.fixed_tokens + token_estimate(user)))
        self._freed.set()

    def stop(self, why: str) -> None:
        """Let nothing go any more."""
        if self.stopped_by is None:
            self.stopped_by = why
        self._freed.set()

    @property
    def asked(self) -> int:
        """Records that were asked for."""
        return self._asked

    def _all_asked(self) -> bool:
        return self._budget.max_records is not None and self._asked >= self._budget.max_records

    def _exceeded(self, more: Usage) -> str | None:
        reserved = Usage(
            input_tokens=self._uncounted.input_tokens + self._reserved.input_tokens + more.input_tokens,
            output_tokens=self._uncounted.output_tokens + self._reserved.output_tokens + more.output_tokens,
        )
        return self._budget.exceeded(self._usage, reserved, self._asked, self._price)

    def _most(self, estimate: int) -> Usage:
        return Usage(input_tokens=math.ceil(estimate * self._most_input), output_tokens=self._most_output)

    def _likely(self, estimate: int) -> Usage:
        if not self._ended:
            votes = votes_of(self._judge)
            return Usage(input_tokens=votes * estimate, output_tokens=votes * _USUAL_OUTPUT)
        mean = max(1.0, self._usage.input_tokens / self._answered_estimate)
        return Usage(
            input_tokens=math.ceil(estimate * mean), output_tokens=math.ceil(self._usage.output_tokens / self._ended)
        )

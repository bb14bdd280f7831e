"""How many requests may be in flight, and when the next one may go.

Concurrency follows TCP's additive increase and multiplicative decrease (Jacobson 1988; Chiu & Jain 1989): it doubles
per round trip until the endpoint first pushes back, is halved once per episode of push-back, and then grows by one per
round trip. Below it lie two token buckets (requests and tokens a minute) and one pause that all requests share.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import Callable, Mapping

from annotator.judges import Pace

_FIRST_LIMIT = 4
# Aim a little below what is allowed: the server's clock and ours differ, and a 429 costs more than 1.5 % of speed.
_SHARE_OF_LIMIT = 0.985
# A backlog of a second may be sent at once; more would break limits that the server counts in short windows.
_BURST_S = 1.0
# Slower than the best by this factor: requests queue up inside the server, and more of them would only wait longer.
_LATENCY_RATIO = 6.0
_LATENCY_FLOOR_S = 0.25


class Gate:
    """Lets requests through. Each `enter` must be followed by exactly one `leave`."""

    def __init__(self, pace: Pace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = float(min(pace.concurrency, _FIRST_LIMIT))
        self.in_flight = 0
        self.pauses = 0
        self._most, self._pace, self._clock = pace.concurrency, pace, clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slow_start = True
        self._last_cut = self._paused_until = -1.0
        self._limited_in_a_row = 0
        self._best_latency = self._latency = 0.0
        self._requests = Bucket(pace.rpm, clock)
        self._tokens = Bucket(pace.tpm, clock)

    async def enter(self, tokens: int) -> float:
        """Wait for a place, the shared pause and both buckets; the time at which the request may go."""
        if self._waiting or self.in_flight >= int(self.limit):
            await self._queue()
        else:
            self.in_flight += 1
        try:
            wait = max(self._requests.reserve(1), self._tokens.reserve(tokens), self._paused_until - self._clock())
            while wait > 0:
                await asyncio.sleep(wait)
                wait = self._paused_until - self._clock()
        except BaseException:
            self._free()
            raise
        return self._clock()

    async def _queue(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._free()
            raise

    def leave(self, started: float, *, overloaded: bool, failed: bool = False) -> None:
        """A request that went at `started` has ended: well, because the endpoint is overloaded, or otherwise badly."""
        now = self._clock()
        if overloaded:
            if started > self._last_cut:  # requests sent before the last cut tell nothing new
                self.limit = max(1.0, self.limit / 2)
                self._last_cut, self._slow_start = now, False
        elif not failed:
            self._limited_in_a_row = 0
            self._grow(now - started)
        self._free()

    def _grow(self, latency: float) -> None:
        if self._latency == 0.0:
            self._best_latency = self._latency = latency
        self._latency += 0.1 * (latency - self._latency)
        self._best_latency = min(self._best_latency, self._latency)
        queueing = self._latency > max(_LATENCY_FLOOR_S, _LATENCY_RATIO * self._best_latency)
        if self.in_flight < 0.8 * self.limit or queueing:
            return
        step = 1.0 if self._slow_start else 1.0 / self.limit
        self.limit = min(float(self._most), self.limit + step)

    def _free(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def pause(self, retry_after_s: float | None) -> None:
        """Nobody sends until the server's `Retry-After` is over; without one, a jittered exponential pause."""
        now = self._clock()
        if retry_after_s is None:
            if now < self._paused_until:
                return  # one pause answers a whole burst of 429s
            ceiling = self._pace.first_wait_s * 2 ** min(self._limited_in_a_row, 10)
            retry_after_s = min(self._pace.longest_wait_s, ceiling) * random.uniform(0.5, 1.0)
        self._limited_in_a_row += 1
        self.pauses += 1
        self._paused_until = max(self._paused_until, now + retry_after_s)

    def learn(self, headers: Mapping[str, str], *, reserved: int, used: int) -> None:
        """Take limits from x-ratelimit headers unless the user gave them; correct the token bucket by real usage."""
        if self._pace.rpm is None and "x-ratelimit-limit-requests" in headers:
            self._requests.set_rate(_number(headers["x-ratelimit-limit-requests"]))
        if self._pace.tpm is None and "x-ratelimit-limit-tokens" in headers:
            self._tokens.set_rate(_number(headers["x-ratelimit-limit-tokens"]))
        self._tokens.refund(reserved - used)


class Bucket:
    """A leaky bucket as virtual scheduling (GCRA, ITU-T I.371): each reservation moves the next free moment on."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        self._clock, self._interval, self._next = clock, 0.0, clock()
        self.set_rate(per_minute)

    def set_rate(self, per_minute: float | None) -> None:
        """Units a minute; None or 0 = no limit."""
        self._interval = 60.0 / (per_minute * _SHARE_OF_LIMIT) if per_minute else 0.0

    def reserve(self, units: int) -> float:
        """Take `units`; seconds to wait before using them."""
        if not self._interval:
            return 0.0
        now = self._clock()
        start = max(self._next, now - _BURST_S)
        self._next = start + units * self._interval
        return start - now

    def refund(self, units: int) -> None:
        """Give back units that were reserved and not used (or, when negative, take those used beyond)."""
        self._next += -units * self._interval


def _number(text: str) -> float | None:
    found = re.match(r"\s*(\d+(?:\.\d+)?)", text)
    return float(found[1]) if found else None

"""The test server's books: what was asked, what was answered in full, what was refused; and its rate limits."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

KEPT_REQUESTS = 200


@dataclass
class Stats:
    """What the server has seen since it started; `GET /__stats` is the JSON of it.

    Attributes:
        requests: chat requests that arrived, whatever came of them.
        outcomes: how many ended as "ok", as each fault by its name, as "limited" (429 of the server's own rate limit),
            "rejected" (unsupported feature or bad request), "bad_key", "abandoned" (the client went away first) or
            "server_bug".
        attempts: by record hash, requests that reached the point where a fault is chosen.
        answered: by record hash, right answers that were sent to the last byte; more than 1 is paid twice.
        prompt_tokens, cached_tokens, completion_tokens: of all complete replies of status 200, right or not, as they
            would be billed (cached ones are part of the prompt's).
        keys: values of Authorization, api-key, OpenAI-Organization and OpenAI-Project headers seen, and how often.
        queries: query strings of chat requests, and how often.
        peak_concurrency: most chat requests in flight at once.
        sent_in_cooldown: requests that arrived while some Retry-After was running.
        retried_early: requests for the very record that had been told to wait longer.
        batches: batches created. batch_lines: lines executed in them.
        timeline: by second since the start: [requests, ok answers, 429s, tokens of the ok answers].
    """

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    peak_concurrency: int = 0
    sent_in_cooldown: int = 0
    retried_early: int = 0
    batches: int = 0
    batch_lines: int = 0
    timeline: dict[int, list[int]] = field(default_factory=dict)

    @property
    def paid_twice(self) -> dict[str, int]:
        """Records that were answered in full more than once, and how often."""
        return {record: times for record, times in self.answered.items() if times > 1}

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the fields as keys."""
        json = {each.name: getattr(self, each.name) for each in fields(self)}
        return json | {"timeline": {str(second): counts for second, counts in self.timeline.items()}}

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> Stats:
        """The other way round."""
        counters = {name: Counter(json[name]) for name in ("outcomes", "attempts", "answered", "keys", "queries")}
        return cls(**{**json, **counters, "timeline": {int(second): of for second, of in json["timeline"].items()}})


class Book:
    """Keeps `Stats` up to date while requests come and go."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.bodies: deque[bytes] = deque(maxlen=KEPT_REQUESTS)
        self.in_flight = 0
        self._start = time.monotonic()
        self._cooldown_ends = 0.0
        self._record_waits: dict[str, float] = {}

    def arrives(self, body: bytes, headers: Mapping[str, str], query: str) -> None:
        """A chat request has come in whole."""
        stats = self.stats
        stats.requests += 1
        self.in_flight += 1
        stats.peak_concurrency = max(stats.peak_concurrency, self.in_flight)
        for name in ("authorization", "api-key", "openai-organization", "openai-project"):
            if name in headers:
                stats.keys[headers[name]] += 1
        if query:
            stats.queries[query] += 1
        stats.sent_in_cooldown += time.monotonic() < self._cooldown_ends
        self.bodies.append(body)
        self._second()[0] += 1

    def names(self, record: str) -> None:
        """The request turned out to be about this record."""
        if self._record_waits:
            self.stats.retried_early += time.monotonic() < self._record_waits.pop(record, 0)

    def attempt(self, record: str) -> int:
        """Counts one more attempt of a record, and gives its number from 1."""
        self.stats.attempts[record] += 1
        return self.stats.attempts[record]

    def told_to_wait(self, record: str, wait_s: float) -> None:
        """The client was told, by a Retry-After, when to come again."""
        ends = time.monotonic() + wait_s
        self._cooldown_ends = max(self._cooldown_ends, ends)
        self._record_waits[record] = ends

    def pays(self, usage: dict[str, Any]) -> None:
        """A reply of status 200 was sent in full, right or wrong."""
        self.stats.prompt_tokens += usage["prompt_tokens"]
        self.stats.completion_tokens += usage["completion_tokens"]
        self.stats.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]

    def answers(self, record: str, usage: dict[str, Any]) -> None:
        """A right answer was sent in full."""
        self.stats.answered[record] += 1
        second = self._second()
        second[1] += 1
        second[3] += usage["total_tokens"]

    def ends(self, outcome: str, status: int) -> None:
        """A chat request is over."""
        self.in_flight -= 1
        self.stats.outcomes[outcome] += 1
        if status == 429:
            self._second()[2] += 1

    def _second(self) -> list[int]:
        return self.stats.timeline.setdefault(int(time.monotonic() - self._start), [0, 0, 0, 0])


class Bucket:
    """A token bucket: `per_minute` units flow in steadily, up to `burst_s` seconds' worth; it starts full."""

    def __init__(self, per_minute: float, burst_s: float) -> None:
        self.per_minute = per_minute
        self._size = max(1.0, per_minute * burst_s / 60)
        self._level = self._size
        self._at = time.monotonic()

    def level(self) -> float:
        """Units there now."""
        now = time.monotonic()
        self._level = min(self._size, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def wait_s(self, units: float) -> float:
        """Seconds until so many units are there; 0 if they are. More than the bucket holds waits for a full one."""
        return max(0.0, (min(units, self._size) - self.level()) * 60 / self.per_minute)

    def take(self, units: float) -> None:
        """Take units out; a unit more than there are is owed to the future."""
        self._level -= units

    def headers(self, kind: str) -> dict[str, str]:
        """The three x-ratelimit headers as OpenAI writes them."""
        reset_s = (self._size - self.level()) * 60 / self.per_minute
        return {
            f"x-ratelimit-limit-{kind}": f"{self.per_minute:.0f}",
            f"x-ratelimit-remaining-{kind}": f"{max(0, math.floor(self._level))}",
            f"x-ratelimit-reset-{kind}": duration(reset_s),
        }


def duration(seconds: float) -> str:
    """A time span as in OpenAI's headers.

    >>> [duration(of) for of in (0.02, 1.5, 360, 3661)]
    ['20ms', '1.5s', '6m0s', '1h1m1s']
    """
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if seconds >= 60:
        text = f"{minutes:.0f}m{text}"
    return f"{hours:.0f}h{text}" if seconds >= 3600 else text

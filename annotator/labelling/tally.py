"""What a labelling run has done so far, and the summary of it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from annotator.budget import Price
from annotator.judges import Usage
from annotator.labelling.rows import Failure, Labelled


@dataclass(slots=True)
class Tally:
    """Counts of one run. records = labelled + failed; cached is the part of labelled that cost nothing.

    usage: of this run alone, failed tries included; answers from the cache were paid for before.
    models: served model -> labelled records.
    """

    records: int = 0
    labelled: int = 0
    failed: int = 0
    cached: int = 0
    usage: Usage = field(default_factory=Usage)
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def count(self, outcome: Labelled | Failure) -> None:
        """Add a record whose outcome is known."""
        self.records += 1
        if isinstance(outcome, Labelled):
            self.labelled += 1
            self.cached += outcome.cached
            self.models[outcome.answer.model] += 1
        else:
            self.failed += 1
            self.failures[outcome.reason] += 1


@dataclass(slots=True)
class ShardCounts:
    """Counts of one input shard, kept with its finished labels. digest: see `rows.content_digest`."""

    labelled: int = 0
    failed: int = 0
    digest: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """JSON values, from which `resume` can add the counts to those of another run."""
        return {
            "labelled": self.labelled,
            "failed": self.failed,
            "digest": f"{self.digest % (1 << 256):064x}",
            "failures": dict(self.failures),
            "models": dict(self.models),
        }


def resume(tally: Tally, counts: Mapping[str, Any]) -> None:
    """Add the counts of a shard that an earlier run finished: its labels cost nothing now."""
    tally.records += counts["labelled"] + counts["failed"]
    tally.labelled += counts["labelled"]
    tally.cached += counts["labelled"]
    tally.failed += counts["failed"]
    tally.failures.update(counts["failures"])
    tally.models.update(counts["models"])


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. total: None when it is not known; rate: records a second over the whole run."""

    done: int
    total: int | None
    labelled: int
    failed: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    rate: float
    in_flight: int


def progress_of(tally: Tally, price: Price | None, *, total: int | None, in_flight: int = 0) -> Progress:
    """A snapshot of a tally."""
    elapsed = max(time.monotonic() - tally.started, 1e-9)
    return Progress(
        done=tally.records,
        total=total,
        labelled=tally.labelled,
        failed=tally.failed,
        cached=tally.cached,
        input_tokens=tally.usage.input_tokens,
        output_tokens=tally.usage.output_tokens,
        cost_usd=None if price is None else price.cost(tally.usage),
        rate=tally.records / elapsed,
        in_flight=in_flight,
    )


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """What a finished run did. records = labelled + failed.

    requests, tokens, cost_usd: of this run alone (cost_usd is None when no price is known).
    shards_resumed: input shards that an interrupted run had finished. failed_path: None when nothing failed.
    """

    records: int
    labelled: int
    failed: int
    cached: int
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd: float | None
    failures: Mapping[str, int]
    models: Mapping[str, int]
    shards: int
    shards_resumed: int
    seconds: float
    judge: str
    out: str
    failed_path: str | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return dataclasses.asdict(self)

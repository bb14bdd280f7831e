"""Which documents are read how often under a budget of tokens.

Every pass over a document is a candidate of its own, worth its gain divided by the number of the pass: a second pass
over text that makes the very move counts like a first one over text that makes a near move (strength 0.5). Scaling laws
value repeats of a whole corpus higher (Muennighoff et al. 2023: exp(-(e - 1) / 15.4) for pass e); gains that rest on
uncertain labels call for more documents rather than more passes.

The passes of each slice queue up, best first, and the queues are merged as in weighted fair queueing (Demers et al.
1989): by tokens taken so far over the slice's quota. What is chosen is the longest beginning of that one order that
fits the budget, so a larger budget never takes back what a smaller one chose, and a slice without enough text leaves
its quota to the others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

QUOTA_POWER = 0.5  # quotas follow the square root of recoverable points, so that small slices are not starved


def quotas(shares: np.ndarray) -> np.ndarray:
    """The part of the budget that each slice may claim while others want text too; sums to 1."""
    powered = np.asarray(shares, dtype=float) ** QUOTA_POWER
    return powered / powered.sum() if powered.sum() else powered


@dataclass(frozen=True, slots=True)
class Order:
    """Passes in the order in which they are taken: document (row of the candidates) and tokens of each.

    whole: False if the order goes on with passes that were not worked out.
    """

    row: np.ndarray
    tokens: np.ndarray
    whole: bool

    def within(self, budget_tokens: int) -> int | None:
        """How many passes fit; None if this much of the order does not tell."""
        fitting = int(np.searchsorted(np.cumsum(self.tokens), budget_tokens, side="right"))
        return fitting if self.whole or fitting < len(self.tokens) else None


class Candidates:
    """Documents that may be chosen, each with all the passes that may be made over it.

    Args:
        table: doc_id, score f64 > 0, tokens i64 >= 1, home (index of the slice that gains most), source str?.
        shares: of recoverable points, per slice.
        max_repeats: passes over one document, at most.
        source_tokens: tokens of one source, repeats counted, at most; None for no cap. No source, no cap.
    """

    def __init__(self, table: pl.DataFrame, *, shares: np.ndarray, max_repeats: int, source_tokens: int | None) -> None:
        self.doc_ids, self.home = table["doc_id"], table["home"].to_numpy()
        self.score, self.tokens = table["score"].to_numpy(), table["tokens"].to_numpy()
        self.quotas, self.max_repeats, self.source_tokens = quotas(shares), max_repeats, source_tokens
        sources = table["source"].cast(pl.Categorical).to_physical()
        self._source = sources.cast(pl.Int64).fill_null(-1).to_numpy()
        self._queues = np.lexsort((-self.score, self.home))  # slice by slice, best first
        self._tie = np.zeros(len(self.score), dtype=np.uint64)
        self._has_tie = np.zeros(len(self.score), dtype=bool)

    def __len__(self) -> int:
        return len(self.score)

    def passes_within(self, budget_tokens: int, rejected: np.ndarray) -> np.ndarray:
        """How often each candidate is read under the budget; those marked `rejected` (bool) are passed over."""
        reach = 2 * budget_tokens  # the cap on sources uses some up
        while True:
            order = self._capped(self.order(reach, rejected))
            fitting = order.within(budget_tokens)
            if fitting is not None:
                return np.bincount(order.row[:fitting], minlength=len(self))
            reach *= 4

    def order(self, tokens: int, rejected: np.ndarray | None = None) -> Order:
        """The order of all passes, without the cap on sources; its first `tokens` tokens at least, if no queue ends.

        Working out no more than that keeps ten million candidates cheap: a queue is cut below the score at which its
        first passes alone reach the slice's quota of `tokens`, and the merged order where the first of them ends.
        """
        rows = self._queues if rejected is None else self._queues[~rejected[self._queues]]
        rows, least = self._front(rows, tokens)
        row, passed = np.repeat(rows, self.max_repeats), np.tile(np.arange(1, self.max_repeats + 1), len(rows))
        value = self.score[row] / passed
        kept = value >= least[self.home[row]]
        row, passed, value = row[kept], passed[kept], value[kept]
        home, tie = self.home[row], self.tie_breakers(rows, row)
        queue = np.lexsort((passed, tie, -value, home))
        row, passed, home, tie = row[queue], passed[queue], home[queue], tie[queue]
        finish = _running(self.tokens[row], home) / self.quotas[home]
        merged = np.lexsort((passed, tie, finish))
        cut = np.isfinite(least)
        if cut.any():
            ends = np.flatnonzero(np.diff(home, append=-1))
            known = finish[ends][cut[home[ends]]].min()
            merged = merged[: np.searchsorted(finish[merged], known, side="right")]
        return Order(row[merged], self.tokens[row[merged]], not cut.any())

    def tie_breakers(self, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """A number for each `wanted` candidate (all among `rows`) that depends on its doc_id only, u64."""
        fresh = rows[~self._has_tie[rows]]
        digests = (
            hashlib.blake2b(doc_id.encode("utf-8", "replace"), digest_size=8).digest() for doc_id in self.doc_ids[fresh]
        )
        self._tie[fresh] = np.frombuffer(b"".join(digests), dtype=">u8")
        self._has_tie[fresh] = True
        return self._tie[wanted]

    def _front(self, rows: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """The best rows of each queue, by its quota of `tokens` or more, and the least score complete (-inf: all)."""
        home, score = self.home[rows], self.score[rows]
        before = _running(self.tokens[rows], home) - self.tokens[rows]
        beyond = np.flatnonzero(before > tokens * self.quotas[home])
        least = np.full(len(self.quotas), -np.inf)
        if len(beyond):
            first = beyond[np.flatnonzero(np.diff(home[beyond], prepend=-1))]  # of each queue that is long enough
            least[home[first]] = score[first - 1]
        return rows[score >= least[home]], least

    def _capped(self, order: Order) -> Order:
        if self.source_tokens is None:
            return order
        source = self._source[order.row]
        kept = (source < 0) | (_running(order.tokens, source) <= self.source_tokens)
        return Order(order.row[kept], order.tokens[kept], order.whole)


def _running(tokens: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of tokens so far within each group, in the order given."""
    by_group = np.argsort(group, kind="stable")
    sums = np.cumsum(tokens[by_group])
    first = np.flatnonzero(np.diff(group[by_group], prepend=-2))
    before = np.concatenate(([0], sums))[first]
    result = np.empty(len(group), dtype=np.int64)
    result[by_group] = sums - np.repeat(before, np.diff(np.append(first, len(group))))
    return result

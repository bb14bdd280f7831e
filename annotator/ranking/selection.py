"""Which documents are read how often under a budget of tokens.

Every pass over a document is a candidate of its own, worth its gain divided by the number of the pass: a second pass
over text that makes the very move counts like a first one over text that makes a near move (strength 0.5). Scaling laws
value repeats of a whole corpus higher (Muennighoff et al. 2023: exp(-(e - 1) / 15.4) for pass e); gains that rest on
uncertain labels call for more documents rather than more passes.

The passes of each slice queue up, best first, and the queues are merged as in weighted fair queueing (Demers et al.
1989): by tokens taken so far over the slice's quota. What is chosen is the longest beginning of that one order that
fits the budget. The order knows nothing of the budget, so of two beginnings one holds the other: a larger budget never
takes back what a smaller one chose, and a slice without enough text leaves its quota to the others.

A very long document at the head of a queue would leave a small budget unspent. Passing over whatever does not fit would
spend it, but break the law above: with a larger budget the long document fits, and takes the place of short ones. So
the order itself puts long documents off: a pass is due when it is at most a quarter of what its queue has taken by
then, itself included, or shorter than most of the queue (see `_never_put_off`); until then it waits, and those behind
it go first. This rule does not look at the budget either, so the law holds; and where the next pass of a queue does
not fit, what is left of its share is less than a third of what it has been given.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

QUOTA_POWER = 0.5  # quotas follow the square root of recoverable points, so that small slices are not starved
PART = 4  # a pass waits until it is at most 1 / PART of what its queue has taken
_BINS, _PER_HALVING = 2048, 64  # scores down to 2^-32, in steps of about one percent


def quotas(shares: np.ndarray) -> np.ndarray:
    """The part of the budget that each slice may claim while others want text too; sums to 1."""
    powered = np.asarray(shares, dtype=float) ** QUOTA_POWER
    return powered / powered.sum() if powered.sum() else powered


def tie_breakers(doc_ids: pl.Series) -> np.ndarray:
    """A number for each document that depends on its id only, u64: who goes first among equals."""
    digests = (hashlib.blake2b(doc_id.encode("utf-8", "replace"), digest_size=8).digest() for doc_id in doc_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


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
        table: doc_id, score f64 in (0, 1], tokens i64 >= 1, home (index of the slice that gains most), and the columns
            of `caps`.
        shares: of recoverable points, per slice.
        max_repeats: passes over one document, at most.
        caps: column -> tokens at most, repeats counted, of documents that share a value of it (null: no cap).
    """

    def __init__(
        self, table: pl.DataFrame, *, shares: np.ndarray, max_repeats: int, caps: Mapping[str, int] = {}
    ) -> None:
        self.doc_ids, self.home = table["doc_id"], table["home"].to_numpy()
        self.score, self.tokens = table["score"].to_numpy(), table["tokens"].to_numpy()
        self.quotas, self.max_repeats = quotas(shares), max_repeats
        self._caps = [(_codes(table[column]), tokens) for column, tokens in caps.items()]
        halvings = -np.log2(np.maximum(self.score, 2.0**-31))
        self._cell = self.home * _BINS + np.clip(halvings * _PER_HALVING, 0, _BINS - 1).astype(np.int64)
        self._mass = self._by_cell(slice(None))
        self._at_once = _never_put_off(self.home, self.tokens, len(self.quotas))

    def __len__(self) -> int:
        return len(self.score)

    def passes_within(self, budget_tokens: int, rejected: np.ndarray) -> np.ndarray:
        """How often each candidate is read under the budget; those marked `rejected` (bool) are passed over."""
        reach = budget_tokens
        while True:
            order = self._capped(self.order(reach, rejected))
            fitting = order.within(budget_tokens)
            if fitting is not None:
                return np.bincount(order.row[:fitting], minlength=len(self))
            reach *= 2

    def order(self, tokens: int, rejected: np.ndarray | None = None) -> Order:
        """The order of all passes, without the caps; its first `tokens` tokens or so.

        Working out no more than that keeps ten million candidates cheap: a queue is cut below the score at which its
        first passes alone reach what it can be given of `tokens`, and the merged order where the first of them ends.
        """
        rows, least = self._front(tokens, rejected)
        row, passed = np.repeat(rows, self.max_repeats), np.tile(np.arange(1, self.max_repeats + 1), len(rows))
        value = self.score[row] / passed
        kept = value >= least[self.home[row]]
        queue = self._queued(row[kept], passed[kept], value[kept])
        queue = self._put_off(queue, least)
        home = self.home[queue]
        finish = _running(self.tokens[queue], home) / self.quotas[home]
        merged = np.argsort(finish, kind="stable")  # of equals the slice that comes first by name
        cut = np.isfinite(least)
        if cut.any():
            ends = np.zeros(len(least))
            np.maximum.at(ends, home, finish)
            merged = merged[: np.searchsorted(finish[merged], ends[cut].min(), side="right")]
        return Order(queue[merged], self.tokens[queue[merged]], not cut.any())

    def _queued(self, row: np.ndarray, passed: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Rows of passes slice by slice, best first, equals by their ids."""
        table = pl.DataFrame({"row": row, "passed": passed, "home": self.home[row], "value": value})
        equal = table.select(pl.struct("home", "value").is_duplicated()).to_series().to_numpy()
        tie = np.zeros(len(row), dtype=np.uint64)
        if equal.any():
            some, back = np.unique(row[equal], return_inverse=True)
            tie[equal] = tie_breakers(self.doc_ids[some])[back]
        table = table.with_columns(pl.Series("tie", tie))
        return table.sort("home", "value", "tie", "passed", descending=[False, True, False, False])["row"].to_numpy()

    def _put_off(self, queue: np.ndarray, least: np.ndarray) -> np.ndarray:
        """The queues with long documents put off until they are due; those that are not due at a cut are left out."""
        home, tokens = self.home[queue], self.tokens[queue]
        before = _running(tokens, home) - tokens
        early = (tokens * (PART - 1) > before) & (tokens > self._at_once[home])
        if not early.any():
            return queue
        bounds = np.append(np.flatnonzero(np.diff(home, prepend=-1)), len(queue))
        touched = set(home[early].tolist())
        parts = []
        for first, last in pairwise(bounds.tolist()):
            slice_ = int(home[first])
            part = queue[first:last]
            if slice_ in touched:
                part = part[_due(self.tokens[part], int(self._at_once[slice_]), not np.isfinite(least[slice_]))]
            parts.append(part)
        return np.concatenate(parts)

    def _front(self, tokens: int, rejected: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The best rows of each queue, as far as `tokens` go, and the least score that is complete (-inf: all)."""
        mass = self._mass if rejected is None or not rejected.any() else self._mass - self._by_cell(rejected)
        level = _level(mass.sum(axis=1) * self.max_repeats, self.quotas, tokens)
        enough = np.cumsum(mass, axis=1) >= (level * self.quotas)[:, None]
        last = np.where(enough.any(axis=1), enough.argmax(axis=1), _BINS)
        first_cell = np.arange(len(last)) * _BINS
        chosen = self._cell <= (first_cell + last)[self.home] if len(last) else np.zeros(len(self), dtype=bool)
        if rejected is not None:
            chosen &= ~rejected
        rows = np.flatnonzero(chosen)
        least = np.full(len(last), np.inf)
        np.minimum.at(least, self.home[rows], self.score[rows])
        least[last >= _BINS - 1] = -np.inf
        return rows, least

    def _by_cell(self, rows: np.ndarray | slice) -> np.ndarray:
        """Tokens by slice and step of the score, best first."""
        cells = len(self.quotas) * _BINS
        return np.bincount(self._cell[rows], self.tokens[rows], cells).reshape(-1, _BINS)

    def _capped(self, order: Order) -> Order:
        """The order without passes that would lift a source or host over its cap; shorter ones behind them stay.

        Which are left out depends on those before them only, so the law of larger budgets holds here too.
        """
        groups = [(codes[order.row], limit) for codes, limit in self._caps]
        crowded = np.zeros(len(order.row), dtype=bool)
        for group, limit in groups:
            known = group >= 0
            crowded |= known & (np.bincount(group[known], order.tokens[known], group.max(initial=0) + 1) > limit)[group]
        kept = np.ones(len(order.row), dtype=bool)
        used: list[dict[int, int]] = [{} for _ in groups]
        for k in np.flatnonzero(crowded).tolist():
            tokens = int(order.tokens[k])
            mine = [int(group[k]) for group, _ in groups]
            sums = [taken.get(one, 0) + tokens for taken, one in zip(used, mine, strict=True)]
            kept[k] = all(one < 0 or s <= limit for one, s, (_, limit) in zip(mine, sums, groups, strict=True))
            if kept[k]:
                for taken, one, total in zip(used, mine, sums, strict=True):
                    taken[one] = total
        return Order(order.row[kept], order.tokens[kept], order.whole)


def _due(tokens: np.ndarray, at_once: int, whole: bool) -> np.ndarray:
    """Positions of a queue's passes in the order in which they are due; the shortest first of those that wait.

    Args:
        tokens: of the passes, best first. at_once: passes up to this length never wait.
        whole: the queue ends here, so that those still waiting come last; else they are left out.
    """
    longest = np.maximum.accumulate(tokens[::-1])[::-1]
    placed: list[int] = []
    waiting: list[tuple[int, int]] = []
    taken = 0

    def due(length: int) -> bool:
        return length <= at_once or length * (PART - 1) <= taken

    for k, length in enumerate(tokens.tolist()):
        while waiting and due(waiting[0][0]):
            taken += waiting[0][0]
            placed.append(heapq.heappop(waiting)[1])
        if not waiting and due(int(longest[k])):
            return np.array([*placed, *range(k, len(tokens))], dtype=np.int64)
        if due(length):
            taken += length
            placed.append(k)
        else:
            heapq.heappush(waiting, (length, k))
    while waiting and (whole or due(waiting[0][0])):
        taken += waiting[0][0]
        placed.append(heapq.heappop(waiting)[1])
    return np.array(placed, dtype=np.int64)


def _never_put_off(home: np.ndarray, tokens: np.ndarray, slices: int) -> np.ndarray:
    """For each queue a length, a power of two, below which a quarter of its documents or more lie: those never wait."""
    bits = np.frexp(tokens.astype(float))[1]  # tokens < 2^bits
    counts = np.bincount(home * 64 + bits, minlength=slices * 64).reshape(slices, 64)
    return (1 << (4 * np.cumsum(counts, axis=1) >= counts.sum(axis=1, keepdims=True)).argmax(axis=1)) - 1


def _level(room: np.ndarray, quotas: np.ndarray, tokens: int) -> float:
    """The level F at which queues that hold `room` tokens give `tokens` in all: sum of min(room, quota x F)."""
    full = np.sort(room / np.where(quotas > 0, quotas, 1.0))
    order = np.argsort(room / np.where(quotas > 0, quotas, 1.0), kind="stable")
    spent, open_quota = 0.0, float(quotas.sum())
    for k, level in zip(order, full, strict=True):
        if spent + open_quota * level >= tokens:
            break
        spent, open_quota = spent + float(room[k]), open_quota - float(quotas[k])
    return (tokens - spent) / open_quota if open_quota > 1e-12 else np.inf


def _codes(column: pl.Series) -> np.ndarray:
    """Numbers for the values of a column, -1 for null."""
    codes = column.cast(pl.Categorical) if column.dtype != pl.Categorical else column
    return codes.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()


def _running(tokens: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of tokens so far within each group; groups stand together."""
    sums = np.cumsum(tokens)
    first = np.flatnonzero(np.diff(group, prepend=-2))
    before = np.concatenate(([0], sums))[first]
    return sums - np.repeat(before, np.diff(np.append(first, len(group))))

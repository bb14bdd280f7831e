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


@dataclass(frozen=True, slots=True)
class Order:
    """All passes in the order in which they are taken: doc (row of the candidates), number of the pass, tokens."""

    doc: np.ndarray
    passed: np.ndarray
    tokens: np.ndarray

    def within(self, budget_tokens: int) -> int:
        """How many passes fit."""
        return int(np.searchsorted(np.cumsum(self.tokens), budget_tokens, side="right"))


def tie_breaker(doc_ids: pl.Series) -> np.ndarray:
    """A number per document that depends on its id only, u64."""
    digests = (hashlib.blake2b(doc_id.encode("utf-8", "replace"), digest_size=8).digest() for doc_id in doc_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def quotas(shares: np.ndarray) -> np.ndarray:
    """The part of the budget that each slice may claim while others want text too; sums to 1."""
    powered = np.asarray(shares, dtype=float) ** QUOTA_POWER
    return powered / powered.sum() if powered.sum() else powered


def take_in_order(
    candidates: pl.DataFrame, *, shares: np.ndarray, max_repeats: int, source_tokens: int | None
) -> Order:
    """All passes over the candidates in order, without those that the cap on their source leaves out.

    Args:
        candidates: score f64 > 0, tokens i64, home (index of a slice), source str?, tie u64.
        shares: of recoverable points, per slice.
        source_tokens: at most so many tokens of one source, repeats counted; None for no cap. No source, no cap.
    """
    order = _merged(candidates, shares, max_repeats)
    if source_tokens is None:
        return order
    sources = candidates["source"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
    allowed = (sources[order.doc] == 0) | (_running(order.tokens, sources[order.doc]) <= source_tokens)
    return Order(order.doc[allowed], order.passed[allowed], order.tokens[allowed])


def _merged(candidates: pl.DataFrame, shares: np.ndarray, max_repeats: int) -> Order:
    count = candidates.height
    doc = np.tile(np.arange(count), max_repeats)
    passed = np.repeat(np.arange(1, max_repeats + 1), count)
    value = candidates["score"].to_numpy()[doc] / passed
    home, tie = candidates["home"].to_numpy()[doc], candidates["tie"].to_numpy()[doc]
    queue = np.lexsort((passed, tie, -value, home))
    doc, passed, home = doc[queue], passed[queue], home[queue]
    tokens = candidates["tokens"].to_numpy()[doc]
    finish = _running(tokens, home) / quotas(shares)[home]
    merged = np.lexsort((passed, tie[queue], finish))
    return Order(doc[merged], passed[merged], tokens[merged])


def _running(tokens: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of tokens so far within each group, in the order given."""
    by_group = np.argsort(group, kind="stable")
    sums = np.cumsum(tokens[by_group])
    first = np.flatnonzero(np.diff(group[by_group], prepend=-1))
    before = np.concatenate(([0], sums))[first]
    lengths = np.diff(np.append(first, len(group)))
    result = np.empty(len(group), dtype=np.int64)
    result[by_group] = sums - np.repeat(before, lengths)
    return result

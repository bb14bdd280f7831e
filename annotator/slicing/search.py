"""Which few slices together explain a loss best: one added at a time, then split, merged and exchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.slicing.partial import Looked, Partial, Rows
from annotator.slicing.significance import Floats

# What a slice must add to be listed, as a share of the square of its bar. At 1 a parent is kept for two children of
# which each alone is too small; from .6 to .85 the choices hardly differ on planted slices.
PRICE = 0.7
_TRIED = 8  # candidates looked at in each step, best first
_NEAR = 0.1  # share of the smaller slice's items from which two are tested against each other again
_MAX_EXCHANGES = 30


@dataclass(frozen=True, slots=True)
class Search:
    """Searches the sets of slices for the one with the largest gain above its price.

    A set is worth sum of squares explained / variance - sum over its slices of PRICE x (bar / scale)^2: a penalised
    likelihood whose penalty is the height that the best of as many chance sets would reach (risk inflation criterion,
    Foster & George 1994, with the permuted maximum for 2 log m). A slice enters and stays only if it, or a wider
    candidate that holds all its items, passes its own bar given all others: the evidence is that of the wider set, and
    the slice is where in it the loss lies.

    bars: the statistic that each candidate must reach; inf where it cannot be tested.
    """

    partial: Partial
    bars: Floats
    max_slices: int

    def forward(self, start: Rows = (), *, but: int = -1, only: NDArray[np.bool_] | None = None) -> Rows:
        """Add the slice with the largest gain that passes, and drop those that no longer do, until none is left."""
        accepted = start
        while len(accepted) < self.max_slices:
            added = self._next(accepted, but, only)
            if added is None:
                return accepted
            accepted = self.kept((*accepted, added), near=added)
            if added not in accepted:
                return accepted
        return accepted

    def improved(self, accepted: Rows) -> Rows:
        """Refine, lift and exchange slices as long as the set as a whole gains.

        Each slice in turn is taken out and the search goes on without it: anywhere, or first among its own parts
        (refine). A wider candidate that holds several accepted slices is tried in their place (lift).
        """
        self.partial.settle(accepted)
        for _ in range(_MAX_EXCHANGES):
            worth, best = self._worth(accepted) + 1e-6, None
            for row in accepted:
                for other in self._exchanges(accepted, row):
                    if self._worth(other) > worth:
                        worth, best = self._worth(other), other
            if best is None:
                break
            accepted = best
        return accepted

    def passes(self, row: int, accepted: Rows) -> int | None:
        """The candidate by which a slice passes given the others: itself, or the wider one furthest above its bar."""
        t = self.partial.look(_without(accepted, row)).t
        if t[row] >= self.bars[row]:
            return row
        height = np.where(self.partial.wider(row), t - self.bars, -math.inf)
        best = int(np.argmax(height))
        return best if height[best] >= 0 else None

    def _next(self, accepted: Rows, but: int, only: NDArray[np.bool_] | None) -> int | None:
        looked = self.partial.look(accepted)
        high = looked.t >= self.bars
        if not high.any():
            return None
        net = self._net(looked)
        net[[*accepted, *([but] if but >= 0 else [])]] = -math.inf
        if only is not None:
            net[~only] = -math.inf
        for _ in range(_TRIED):
            row = int(np.argmax(net))  # rows are in slice_id order, so that ties go to the first name
            if not net[row] > 0:
                return None
            if high[row] or (high & self.partial.wider(row)).any():
                return row
            net[row] = -math.inf
        return None

    def kept(self, accepted: Rows, *, near: int | None = None) -> Rows:
        """Without the slices that no longer pass, the weakest first; only those that share items with `near`, if given.

        One that shares few loses hardly anything of its t to the other.
        """
        while accepted:
            weak = [(self._standing(row, accepted), row) for row in accepted if near is None or self._near(row, near)]
            height, row = min(weak, default=(0.0, -1))
            if height >= 0:
                break
            accepted = _without(accepted, row)
        return accepted

    def _near(self, row: int, other: int) -> bool:
        sizes = self.partial.sizes
        return self.partial.shared(other)[row] >= _NEAR * min(sizes[row], sizes[other])

    def _standing(self, row: int, accepted: Rows) -> float:
        """What a slice gains above its price given the others; -inf if it does not pass."""
        if self.passes(row, accepted) is None:
            return -math.inf
        return float(self._net(self.partial.look(_without(accepted, row)))[row])

    def _exchanges(self, accepted: Rows, row: int) -> list[Rows]:
        rest = _without(accepted, row)
        parts = self.forward(rest, but=row, only=self.partial.narrower(row))
        found = [self.forward(rest, but=row), self.forward(parts, but=row)]
        shared = self.partial.shared
        for wider in np.flatnonzero(self.partial.wider(row) & self.partial.worth & np.isfinite(self.bars)).tolist():
            inside = [other for other in accepted if shared(other)[wider] >= self.partial.sizes[other] - 0.5]
            if wider not in accepted and len(inside) > 1:
                found.append(self.kept((*(other for other in accepted if other not in inside), wider)))
        return found

    def _net(self, looked: Looked) -> Floats:
        return looked.gain - self._price()

    def _price(self) -> Floats:
        return PRICE * (self.bars / self.partial.scale) ** 2

    def _worth(self, accepted: Rows) -> float:
        price = float(self._price()[list(accepted)].sum())
        return -self.partial.look(accepted).left / self.partial.variance - price


def _without(accepted: Rows, row: int) -> Rows:
    return tuple(other for other in accepted if other != row)

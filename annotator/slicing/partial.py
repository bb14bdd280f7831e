"""How much each candidate slice adds to the slices accepted already: partial tests by regression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotator.slicing.lattice import Lattice
from annotator.slicing.significance import PRIOR_ITEMS, Against, Floats

Rows = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """What a set of accepted slices leaves to the others.

    t: statistic of every candidate given the accepted ones; -inf where it cannot be tested or loses too little.
    gain: by how much the sum of squares left would fall with the candidate, in units of the variance.
    left: residual sum of squares.
    """

    t: Floats
    gain: Floats
    left: float


class Partial:
    """Tests of every candidate given others, for one weighting of the items.

    The differences are regressed on the indicators of the accepted slices (and a constant, against "rest"). A candidate
    S with residual sum s then has the partial coefficient s / n_eff, where n_eff = n_S - g' (X'X)^-1 g is what is left
    of its items once the accepted slices are projected out (Frisch & Waugh 1933), and
    t = coefficient / sqrt(s_S^2 / n_S + s_rest^2 (1 / n_eff - 1 / n_S)): with nothing accepted, the moderated Welch t
    of `t_statistics`. Slices are regressed out rather than their items removed, so that a first choice that was too
    wide or too narrow can still be told from better ones.

    Sums run without BLAS, whose order depends on the number of threads.

    Args:
        differences: how much worse each item is.
        scale: what clustering divides each t by (`cluster_scale`).
        weights: how often each item counts; None means once.
    """

    def __init__(
        self,
        lattice: Lattice,
        differences: Floats,
        *,
        scale: Floats,
        min_items: int,
        min_deficit: float,
        against: Against,
        weights: Floats | None = None,
    ) -> None:
        self.lattice, self.members, self.differences = lattice, lattice.members, differences
        self.weights = np.ones(len(differences)) if weights is None else weights
        self.scale, self.against, self.min_deficit, self.fewest = scale, against, min_deficit, min_items / 2
        self.total = float(self.weights.sum())
        self.sizes = self.members @ self.weights
        self._sum, self._sums = float(np.sum(self.weights * differences)), self.members @ (self.weights * differences)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self._sums / self.sizes
        self.worth = (mean >= min_deficit) & (self.sizes >= self.fewest)
        self._shared: dict[int, Floats] = {}
        self._looked: dict[Rows, Looked] = {}
        self.variance = self._spread(differences)

    def settle(self, accepted: Rows) -> None:
        """Take the variance of the differences from what these slices leave: gains are counted in units of it."""
        residual, _, _ = self._regressed(accepted)
        self.variance = self._spread(residual)
        self._looked.clear()

    def shared(self, row: int) -> Floats:
        """How many items each candidate shares with this one."""
        if row not in self._shared:
            inside = np.zeros(len(self.differences))
            inside[self.lattice.items_of(row)] = 1.0
            self._shared[row] = self.members @ (self.weights * inside)
        return self._shared[row]

    def wider(self, row: int) -> NDArray[np.bool_]:
        """Candidates that hold all items of this one, itself among them."""
        return self.shared(row) >= self.sizes[row] - 0.5

    def narrower(self, row: int) -> NDArray[np.bool_]:
        """Candidates whose items all lie in this one, itself left out."""
        return (self.shared(row) >= self.sizes - 0.5) & (self.sizes < self.sizes[row])

    def look(self, accepted: Rows) -> Looked:
        """Test every candidate given the accepted ones."""
        accepted = tuple(sorted(accepted))
        if accepted not in self._looked:
            self._looked[accepted] = self._look(accepted)
        return self._looked[accepted]

    def residuals(self, accepted: Rows) -> Floats:
        """What the accepted slices leave of the differences."""
        return self._regressed(tuple(sorted(accepted)))[0]

    def _regressed(self, accepted: Rows) -> tuple[Floats, Floats, Floats]:
        """Residuals, (X'WX)^-1, and the weighted overlap of every candidate (column) with each regressor (row)."""
        rows = list(accepted)
        shared, sums = [self.shared(row) for row in rows], self._sums[rows]
        gram = np.array([overlap[rows] for overlap in shared]).reshape(len(rows), len(rows))
        if self.against == "rest":
            shared, sums = [self.sizes, *shared], np.concatenate([[self._sum], sums])
            gram = np.block([[np.array([[self.total]]), self.sizes[None, rows]], [self.sizes[rows, None], gram]])
        if not len(gram):
            return self.differences, gram, np.zeros((0, len(self.sizes)))
        # A slice may be the union of others: the ridge keeps the inverse finite and leaves such a slice no n_eff.
        inverse = np.linalg.inv(gram + 1e-9 * self.total * np.eye(len(gram)))
        coefficients = inverse @ sums
        residual = self.differences - (coefficients[0] if self.against == "rest" else 0.0)
        for row, coefficient in zip(rows, coefficients[len(coefficients) - len(rows) :]):
            residual[self.lattice.items_of(row)] -= coefficient
        return residual, inverse, np.stack(shared)

    def _look(self, accepted: Rows) -> Looked:
        residual, inverse, shared = self._regressed(accepted)
        weighted = self.weights * residual
        left = float(np.sum(weighted * residual))
        total, squares = self.members @ weighted, self.members @ (weighted * residual)
        effective = self.sizes - np.einsum("kr,kl,lr->r", shared, inverse, shared)
        testable = self.worth & (effective >= self.fewest)
        n, effective = np.where(testable, self.sizes, 1.0), np.where(testable, effective, 1.0)
        prior = self._spread(residual)
        inside = np.maximum(squares - total**2 / n, 0.0)
        rest = np.maximum(self.total - n, 2.0)
        outside = np.maximum(left - squares - (float(weighted.sum()) - total) ** 2 / rest, 0.0)
        error = (inside + PRIOR_ITEMS * prior) / (n - 1 + PRIOR_ITEMS) / n
        apart = np.maximum(1 / effective - 1 / n, 0.0)  # 1 / rest where nothing is accepted
        error = error + (outside + PRIOR_ITEMS * prior) / (rest - 1 + PRIOR_ITEMS) * apart
        coefficient = total / effective
        testable &= (coefficient >= self.min_deficit) & (error > 1e-300)
        t = np.divide(coefficient, np.sqrt(error), out=np.zeros_like(total), where=error > 1e-300) * self.scale
        gain = total**2 / effective / max(self.variance, 1e-300)
        return Looked(np.where(testable, t, -math.inf), np.where(testable, gain, -math.inf), left)

    def _spread(self, values: Floats) -> float:
        mean = float(np.sum(self.weights * values)) / self.total
        return float(np.sum(self.weights * (values - mean) ** 2)) / max(self.total - 1, 1.0)

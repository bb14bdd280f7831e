"""Did anything outside the target slices get worse? Every slice tested at once, and a margin for all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from annotator.fingerprint import fingerprint
from annotator.slicing.lattice import build_lattice
from annotator.slicing.outcomes import rounded
from annotator.slicing.significance import max_t
from annotator.taxonomy import AXES
from annotator.verification.effects import Mask, weights_of
from annotator.verification.trial import Trial

FEWEST_ITEMS = 10


def regressions(
    trial: Trial, labels: pl.DataFrame, untouched: Mask, *, margin: float, permutations: int
) -> dict[str, Any]:
    """Slices outside the targets that lost, by max-T over all of them; whether the rest lost less than the margin.

    Returns:
        tested (slices), lost (slice_id, items, effect, p_adjusted), non_inferior (whether a loss of `margin` or more is
        ruled out; null when it cannot be told), low (lower end of the effect on the rest), margin.
    """
    at = np.flatnonzero(untouched)
    if len(at) < 2 * FEWEST_ITEMS:
        return {"tested": 0, "lost": [], "non_inferior": None, "low": None, "margin": margin}
    axes = _axes(labels, [trial.item_ids[i] for i in at])
    lattice = build_lattice(axes, min_items=max(FEWEST_ITEMS, min(20, len(at) // 20)))
    clusters = np.unique(trial.clusters[at], return_inverse=True)[1]
    tests = max_t(
        lattice.members,
        (trial.before.mean - trial.after.mean)[at],
        seed=int(fingerprint(["regressions", trial.item_ids])[:16], 16),
        levels=np.array([len(conjunction.predicates) for conjunction in lattice.conjunctions]),
        clusters=None if len(np.unique(clusters)) == len(at) else clusters,
        min_items=FEWEST_ITEMS,
        permutations=permutations,
        alpha=trial.alpha,
        against="zero",
    )
    lost = [
        {
            "slice_id": lattice.conjunctions[row].slice_id,
            "items": int(lattice.sizes[row]),
            "effect": rounded(-float(tests.mean[row])),
            "p_adjusted": rounded(float(tests.p[row])),
        }
        for row in np.argsort(-tests.t, kind="stable")
        if tests.p[row] <= trial.alpha and tests.mean[row] > 0
    ]
    low = trial.effect(weights_of(untouched))["low"]
    non_inferior = None if low is None else bool(low >= -margin)
    return {"tested": len(lattice.sizes), "lost": lost, "non_inferior": non_inferior, "low": low, "margin": margin}


def _axes(labels: pl.DataFrame, item_ids: list[str]) -> pl.DataFrame:
    """item_id and the four axes, in the order of the ids; null where there is no label."""
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    known = good.select(pl.col("record_id").alias("item_id"), *AXES).unique("item_id")
    return pl.DataFrame({"item_id": item_ids}).join(known, on="item_id", how="left", maintain_order="left")

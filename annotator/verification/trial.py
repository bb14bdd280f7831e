"""All arms of a trial on the items that they have in common, and the effects on any group of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from annotator.diagnosis.unscored import without_unscored
from annotator.errors import BadInput
from annotator.scores import Floats, one_run, score_interval
from annotator.slicing.outcomes import rounded
from annotator.slicing.stability import halves
from annotator.taxonomy import AXES
from annotator.verification.effects import Arm, Mask, common_items, effect, flips, read_arm, weights_of

_FLIPS = 1000  # ids of each kind that are listed


@dataclass(frozen=True, slots=True)
class Trial:
    """All arms on the items that they have in common.

    item_ids: sorted. clusters: number of each item's family. half_b: items of the half that is held out.
    """

    item_ids: list[str]
    clusters: NDArray[np.integer]
    half_b: Mask
    before: Arm
    after: Arm
    controls: list[Arm]
    alpha: float

    @property
    def arms(self) -> list[Arm]:
        return [self.before, self.after, *self.controls]

    @property
    def everything(self) -> Mask:
        return np.ones(len(self.item_ids), dtype=bool)

    def effect(self, weights: Floats, *, better: Arm | None = None, base: Arm | None = None) -> dict[str, Any]:
        """Weighted mean of one arm over another: of `after` over `before`, unless named otherwise."""
        return effect(weights, better or self.after, base or self.before, self.clusters, alpha=self.alpha)

    def mask(self, item_ids: list[str]) -> Mask:
        wanted = set(item_ids)
        return np.array([item_id in wanted for item_id in self.item_ids])

    def group(self, inside: Mask) -> dict[str, Any]:
        """Scores before and after of some items, the effect, what each control arm did there, and items up and down."""
        gained, lost = flips(inside, self.after, self.before)
        scores = {}
        for arm in (self.before, self.after):
            mean = arm.mean[inside]
            low, high = score_interval(
                mean, self.clusters[inside], samples=round(inside.sum() * arm.samples * len(arm.runs))
            )
            scores[arm.name] = {"score": rounded(float(mean.mean())), "low": rounded(low), "high": rounded(high)}
        weights = weights_of(inside)
        return {
            **scores,
            "effect": self.effect(weights),
            "control_effects": {arm.name: self.effect(weights, better=arm) for arm in self.controls},
            "over_controls": {arm.name: self.effect(weights, base=arm) for arm in self.controls},
            "gained": gained,
            "lost": lost,
        }

    def flip_ids(self) -> dict[str, Any]:
        """Ids of items that went up and down, and how many of each."""
        d = self.after.mean - self.before.mean
        gained = [self.item_ids[i] for i in np.flatnonzero(d > 1e-9)]
        lost = [self.item_ids[i] for i in np.flatnonzero(d < -1e-9)]
        return {"gained": len(gained), "lost": len(lost), "gained_ids": gained[:_FLIPS], "lost_ids": lost[:_FLIPS]}


def read_frames(frames: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """The scored outputs of every arm, and how many of each have no score and are left out.

    Raises:
        BadInput: an arm without a single score, or several runs before.
    """
    scored, unscored = {}, {}
    for name, frame in frames.items():
        scored[name], unscored[name] = without_unscored(frame, where=name)
    scored["before"] = one_run(scored["before"], where="before")
    return scored, unscored


def build_trial(items: pl.DataFrame, frames: Mapping[str, pl.DataFrame], *, metric: str, alpha: float) -> Trial:
    """The trial of the frames "before" and "after" (in that order) and of the control arms after them."""
    item_ids = common_items(dict(frames), items, metric)
    known = pl.DataFrame({"item_id": item_ids}).join(
        items.unique("item_id"), on="item_id", how="left", maintain_order="left"
    )
    own = pl.lit("item ") + pl.col("item_id")
    cluster = (pl.lit("cluster ") + pl.col("cluster_id")).fill_null(own) if "cluster_id" in known.columns else own
    names = known.select(cluster.alias("cluster"))["cluster"]
    before, after, *controls = (read_arm(name, frame, item_ids, metric) for name, frame in frames.items())
    clusters = np.unique(names.to_numpy(), return_inverse=True)[1]
    return Trial(item_ids, clusters, ~halves(names.to_list()), before, after, controls, alpha)


def members(slices: pl.DataFrame, labels: pl.DataFrame) -> dict[str, list[str]]:
    """slice_id -> ids of all items that it holds, and of all labelled items that its description fits.

    Raises:
        BadInput: no slice at all.
    """
    if slices.is_empty():
        raise BadInput("there is no target slice", where="slices", remedy="Find slices first (annotator slices).")
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    found = {}
    for row in slices.to_dicts():
        fits = pl.lit(value=True)
        for axis in ("background_condition", "task_type", "output_constraint"):
            if row.get(axis) is not None:
                fits &= pl.col(axis) == row[axis]
        for operation in row.get("solving_operation") or []:
            fits &= pl.col("solving_operation").list.contains(operation)
        named = any(row.get(axis) for axis in AXES)
        fitting = good.filter(fits)["record_id"].to_list() if named else []
        found[row["slice_id"]] = sorted({*(row["item_ids"] or []), *fitting})
    return found

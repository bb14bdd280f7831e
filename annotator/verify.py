"""Did the intervention help where it should, more than controls do, and without harm elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.scores import one_run, score_interval
from annotator.slicing.lattice import build_lattice
from annotator.slicing.outcomes import rounded
from annotator.slicing.significance import max_t
from annotator.slicing.stability import halves
from annotator.taxonomy import AXES
from annotator.verification.effects import (
    Arm,
    Mask,
    common_items,
    effect,
    flips,
    holm,
    items_needed,
    read_arm,
    weights_of,
)
from annotator.verification.passing import pass_table

_FEWEST_ITEMS = 10
_FLIPS = 1000


@dataclass(frozen=True, slots=True)
class _Trial:
    """All arms on the items that they have in common."""

    item_ids: list[str]
    clusters: NDArray[np.integer]
    half_b: Mask
    before: Arm
    after: Arm
    controls: list[Arm]
    alpha: float

    def effect(self, weights: np.ndarray, *, better: Arm | None = None, base: Arm | None = None) -> dict[str, Any]:
        return effect(weights, better or self.after, base or self.before, self.clusters, alpha=self.alpha)

    def mask(self, item_ids: list[str]) -> Mask:
        wanted = set(item_ids)
        return np.array([item_id in wanted for item_id in self.item_ids])


def verify(
    items: pl.DataFrame,
    labels: pl.DataFrame,
    before: pl.DataFrame,
    after: pl.DataFrame,
    slices: pl.DataFrame,
    *,
    controls: Mapping[str, pl.DataFrame] | None = None,
    metric: str = "mean",
    margin: float = 0.02,
    min_effect: float = 0.02,
    alpha: float = 0.05,
    disjoint_items: pl.DataFrame | None = None,
    disjoint_before: pl.DataFrame | None = None,
    disjoint_after: pl.DataFrame | None = None,
    permutations: int = 999,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Compare a checkpoint before and after, on target slices and elsewhere, with control arms where there are any.

    Args:
        items: item_id, cluster_id?, and target? (for the guess floor of pass@k).
        labels: LABELS table: what the other slices are, for the search for regressions.
        before: outputs of one run.
        after: outputs after the targeted intervention; several runs in one frame are training seeds.
        slices: SLICES table, decided on before looking at `after`. Targets are its item_ids and every other item whose
            labels match its description, so that slices found on some items can be verified on others.
        controls: arm name -> outputs of other interventions from the same start, one or several seeds each.
        metric: "mean", "pass@k" or "pass^k".
        margin: the largest loss elsewhere that is still called no loss, as a rate.
        min_effect: the smallest gain worth having, as a rate.
        disjoint_items, disjoint_before, disjoint_after: another benchmark for the same skills, if there is one.
        progress: called with the number of target slices assessed.

    Returns:
        verification.json: verdict, summary, advice; overall, target, untouched and slices (effects with intervals,
        flips), did (target minus untouched), controls (contrasts of the targeted arm with each), regressions (max-T
        over all other slices; non-inferiority), held_out (the effect in half of the families), disjoint, pass_at_k
        (with guess floor), flips (item ids), needed (items that would settle it).

    "confirmed": the target slices gained (lower bound above 0), by more than with every control, and nothing else
    lost. "harmful": the target or everything together lost, or the rest lost more than `margin`, surely.
    "not_confirmed": a gain of `min_effect`, on its own or over a control, is ruled out. Else "inconclusive".

    Raises:
        BadInput: ids match nothing, no target slice, several runs before.
    """
    controls = dict(controls or {})
    frames = {"before": one_run(before, where="before"), "after": after, **controls}
    item_ids = common_items(frames, items, metric)
    trial = _trial(items, frames, item_ids, metric, alpha)
    slices = _with_members(slices, labels)
    target = trial.mask([item_id for row in slices["item_ids"].to_list() for item_id in row])
    if not target.any():
        raise BadInput(
            "no item of a target slice was answered", where="slices", remedy="Give the slices found on these items."
        )
    everything = np.ones(len(item_ids), dtype=bool)
    untouched = ~target
    found = {
        "overall": _group(trial, everything),
        "target": _group(trial, target),
        "untouched": _group(trial, untouched) if untouched.any() else None,
        "did": trial.effect(weights_of(target, minus=untouched)) if untouched.any() else None,
        "slices": _slices(trial, slices, progress),
        "controls": [_control(trial, arm, target, untouched) for arm in trial.controls],
        "regressions": _regressions(trial, labels, untouched, margin, permutations),
        "held_out": _group(trial, target & trial.half_b) if (target & trial.half_b).any() else None,
        "disjoint": _disjoint(disjoint_items, disjoint_before, disjoint_after, metric, alpha),
    }
    verdict, why = _verdict(found, margin, min_effect)
    found["needed"] = _needed(found, trial, min_effect, alpha)
    return {
        "verdict": verdict,
        "summary": why,
        "advice": _advice(verdict, found, trial, min_effect),
        **found,
        "pass_at_k": pass_table(items, frames["before"], after, item_ids),
        "flips": _flip_ids(trial),
        "runs": {arm.name: arm.runs for arm in (trial.before, trial.after, *trial.controls)},
        "samples_per_item": {arm.name: rounded(arm.samples) for arm in (trial.before, trial.after, *trial.controls)},
        "metric": metric,
        "alpha": alpha,
        "margin": margin,
        "min_effect": min_effect,
        "items_used": len(item_ids),
        "items_target": int(target.sum()),
    }


def _with_members(slices: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """slice_id, and item_ids with all labelled items that its description fits."""
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    members = []
    for row in slices.to_dicts():
        fits = pl.lit(value=True)
        for axis in ("background_condition", "task_type", "output_constraint"):
            if row.get(axis) is not None:
                fits &= pl.col(axis) == row[axis]
        for operation in row.get("solving_operation") or []:
            fits &= pl.col("solving_operation").list.contains(operation)
        named = any(row.get(axis) for axis in AXES)
        fitting = good.filter(fits)["record_id"].to_list() if named else []
        members.append(sorted({*(row["item_ids"] or []), *fitting}))
    return pl.DataFrame(
        {"slice_id": slices["slice_id"], "item_ids": members}, schema_overrides={"item_ids": pl.List(pl.String)}
    )


def _trial(items, frames, item_ids, metric, alpha) -> _Trial:
    known = pl.DataFrame({"item_id": item_ids}).join(
        items.unique("item_id"), on="item_id", how="left", maintain_order="left"
    )
    own = pl.lit("item ") + pl.col("item_id")
    cluster = (pl.lit("cluster ") + pl.col("cluster_id")).fill_null(own) if "cluster_id" in known.columns else own
    names = known.select(cluster.alias("cluster"))["cluster"]
    arms = [read_arm(name, frame, item_ids, metric) for name, frame in frames.items()]
    return _Trial(
        item_ids,
        np.unique(names.to_numpy(), return_inverse=True)[1],
        ~halves(names.to_list()),
        arms[0],
        arms[1],
        arms[2:],
        alpha,
    )


def _group(trial: _Trial, inside: Mask) -> dict[str, Any]:
    """Scores before and after of some items, the effect, and how many items went up and down."""
    gained, lost = flips(inside, trial.after, trial.before)
    scores = {}
    for arm in (trial.before, trial.after):
        mean = arm.mean[inside]
        low, high = score_interval(
            mean, trial.clusters[inside], samples=round(inside.sum() * arm.samples * len(arm.runs))
        )
        scores[arm.name] = {"score": rounded(float(mean.mean())), "low": rounded(low), "high": rounded(high)}
    return {**scores, "effect": trial.effect(weights_of(inside)), "gained": gained, "lost": lost}


def _slices(trial: _Trial, slices: pl.DataFrame, progress: Callable[[int], None] | None) -> list[dict[str, Any]]:
    rows = []
    for done, row in enumerate(slices.select("slice_id", "item_ids").to_dicts(), start=1):
        inside = trial.mask(row["item_ids"])
        if inside.any():
            held_out = inside & trial.half_b
            contrasts = {arm.name: trial.effect(weights_of(inside), base=arm) for arm in trial.controls}
            rows.append(
                {"slice_id": row["slice_id"], "items": int(inside.sum())}
                | _group(trial, inside)
                | {
                    "held_out": trial.effect(weights_of(held_out)) if held_out.any() else None,
                    "over_controls": contrasts,
                }
            )
        if progress:
            progress(done)
    adjusted = holm([row["effect"]["p"] for row in rows])
    return [row | {"p_adjusted": p} for row, p in zip(rows, adjusted)]


def _control(trial: _Trial, arm: Arm, target: Mask, untouched: Mask) -> dict[str, Any]:
    """A control arm's own effects, and how much more the targeted arm did."""
    whole = np.ones(len(target), dtype=bool)
    both = weights_of(target, minus=untouched) if untouched.any() else None
    return {
        "name": arm.name,
        "runs": arm.runs,
        "overall": trial.effect(weights_of(whole), better=arm),
        "target": trial.effect(weights_of(target), better=arm),
        "over_control_overall": trial.effect(weights_of(whole), base=arm),
        "over_control_target": trial.effect(weights_of(target), base=arm),
        "did": trial.effect(both, base=arm) if both is not None else None,
    }


def _regressions(
    trial: _Trial, labels: pl.DataFrame, untouched: Mask, margin: float, permutations: int
) -> dict[str, Any]:
    """Slices outside the targets that lost, by max-T over all of them; whether the rest lost less than the margin."""
    at = np.flatnonzero(untouched)
    if len(at) < 2 * _FEWEST_ITEMS:
        return {"tested": 0, "lost": [], "non_inferior": None, "low": None, "detectable": None}
    rest = trial.effect(weights_of(untouched))
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    axes = pl.DataFrame({"item_id": [trial.item_ids[i] for i in at]}).join(
        good.select(pl.col("record_id").alias("item_id"), *AXES).unique("item_id"),
        on="item_id",
        how="left",
        maintain_order="left",
    )
    lattice = build_lattice(axes, min_items=max(_FEWEST_ITEMS, min(20, len(at) // 20)))
    loss = (trial.before.mean - trial.after.mean)[at]
    clusters = np.unique(trial.clusters[at], return_inverse=True)[1]
    tests = max_t(
        lattice.members,
        loss,
        seed=int(fingerprint(["regressions", trial.item_ids])[:16], 16),
        levels=np.array([len(conjunction.predicates) for conjunction in lattice.conjunctions]),
        clusters=None if len(np.unique(clusters)) == len(at) else clusters,
        min_items=_FEWEST_ITEMS,
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
    low = rest["low"]
    return {
        "tested": len(lattice.sizes),
        "lost": lost,
        "non_inferior": None if low is None else bool(low >= -margin),
        "low": low,
        "margin": margin,
    }


def _disjoint(items, before, after, metric, alpha) -> dict[str, Any] | None:
    """The overall effect on another benchmark."""
    given = [value is not None for value in (items, before, after)]
    if not any(given):
        return None
    if not all(given):
        raise BadInput("a disjoint benchmark needs items, outputs before and outputs after", remedy="Give all three.")
    frames = {"before": one_run(before, where="disjoint before"), "after": after}
    item_ids = common_items(frames, items, metric)
    trial = _trial(items, frames, item_ids, metric, alpha)
    return _group(trial, np.ones(len(item_ids), dtype=bool)) | {"items": len(item_ids)}


def _verdict(found: dict[str, Any], margin: float, min_effect: float) -> tuple[str, str]:
    target, overall = found["target"]["effect"], found["overall"]["effect"]
    rest = (found["untouched"] or {}).get("effect")
    if _below(overall, 0) or _below(target, 0):
        where = "target slices" if _below(target, 0) else "benchmark as a whole"
        return "harmful", f"The {where} lost beyond chance."
    if rest and _below(rest, -margin):
        return "harmful", f"The items outside the target slices lost more than {100 * margin:g} points."
    gained = _above(target, 0)
    beaten = [arm["name"] for arm in found["controls"] if not _above(arm["over_control_target"], 0)]
    lost = found["regressions"]["lost"]
    points = f"{100 * target['estimate']:+.1f} points on the target slices"
    if gained and not beaten and not lost:
        over = f", more than with {', '.join(arm['name'] for arm in found['controls'])}" if found["controls"] else ""
        return "confirmed", f"{points}{over}, and no slice lost."
    if _below(target, min_effect):
        return "not_confirmed", f"A gain of {100 * min_effect:g} points on the target slices is ruled out."
    level = [arm["name"] for arm in found["controls"] if _below(arm["over_control_target"], min_effect)]
    if level:
        return "not_confirmed", f"{points}, but {', '.join(level)} did as well: targeting is not what helped."
    if gained and lost:
        return "inconclusive", f"{points}, but {len(lost)} other slices lost, first {lost[0]['slice_id']}."
    if gained:
        return "inconclusive", f"{points}, but not surely more than with {', '.join(beaten)}."
    return "inconclusive", f"{points}, within chance: too few items or samples to tell."


def _below(found: dict[str, Any], bound: float) -> bool:
    return found["high"] is not None and found["high"] < bound


def _above(found: dict[str, Any], bound: float) -> bool:
    return found["low"] is not None and found["low"] > bound


def _needed(found: dict[str, Any], trial: _Trial, min_effect: float, alpha: float) -> dict[str, Any]:
    """How many target items would show an effect of the size seen (at least min_effect), for each open question."""
    questions = {"gain": found["target"]["effect"]}
    questions |= {f"over {arm['name']}": arm["over_control_target"] for arm in found["controls"]}
    needed = {}
    for question, seen in questions.items():
        if seen["se"]:
            size = max(abs(seen["estimate"]), min_effect)
            needed[question] = {
                "effect": rounded(size),
                "items_now": seen["items"],
                "items_needed": items_needed(size, seen["se"], seen["items"], alpha=alpha),
            }
    return needed


def _advice(verdict: str, found: dict[str, Any], trial: _Trial, min_effect: float) -> list[str]:
    advice = []
    if not trial.controls:
        advice.append(
            "There is no control arm, so the gain may come from training as such, or from regression to the mean of "
            "slices that were chosen for scoring low. Train a control on as many random in-domain documents."
        )
    if verdict == "inconclusive":
        for question, need in found["needed"].items():
            if need["items_needed"] > need["items_now"]:
                advice.append(
                    f"To tell ({question}; {100 * need['effect']:.1f} points) takes about {need['items_needed']:,} "
                    f"target items at these samples; there are {need['items_now']:,}. More samples per item help too."
                )
    if len(trial.after.runs) == 1:
        advice.append("One training run: the intervals hold for this checkpoint, not for the recipe. Train more seeds.")
    if found["regressions"]["non_inferior"] is False:
        low = found["regressions"]["low"]
        advice.append(f"Outside the targets a loss of up to {-100 * low:.1f} points cannot be ruled out.")
    if found["disjoint"] is None:
        advice.append("No disjoint benchmark was given: a gain on items of one benchmark may not carry over.")
    return advice


def _flip_ids(trial: _Trial) -> dict[str, Any]:
    """Ids of items that went up and down, and how many of each."""
    d = trial.after.mean - trial.before.mean
    gained = [trial.item_ids[i] for i in np.flatnonzero(d > 1e-9)]
    lost = [trial.item_ids[i] for i in np.flatnonzero(d < -1e-9)]
    return {"gained": len(gained), "lost": len(lost), "gained_ids": gained[:_FLIPS], "lost_ids": lost[:_FLIPS]}

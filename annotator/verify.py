"""Did the intervention help where it should, more than controls do, and without harm elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.slicing.outcomes import rounded
from annotator.verification.effects import Arm, Mask, holm, weights_of
from annotator.verification.passing import pass_table
from annotator.verification.regressions import regressions
from annotator.verification.trial import Trial, build_trial, members, read_frames
from annotator.verification.verdict import advice_of, needed_of, verdict_of


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
        flips; control_effects: what each control arm did there; over_controls: how much more the targeted one did), did
        (target minus untouched), controls (contrasts of the targeted arm with each), regressions (max-T over all other
        slices; non-inferiority), held_out (the effect in half of the families), disjoint, pass_at_k (with guess floor),
        flips (item ids), needed (items or samples that would settle it), unscored (outputs without a score, an arm),
        items_left_out (items that some run has no score for).

    "confirmed": the target slices gained (lower bound above 0), by more than with every control, and nothing else
    lost. "harmful": the target or everything together lost, or the rest lost more than `margin`, surely.
    "not_confirmed": a gain of `min_effect`, on its own or over a control, is ruled out. Else "inconclusive".

    Raises:
        BadInput: ids match nothing, no target slice, several runs before, an arm without a score, or a margin outside
            0..1.
    """
    if not 0.0 <= margin <= 1.0:
        raise BadInput(f"{margin} is not a rate", where="margin", remedy="Give a number from 0 to 1, such as 0.02.")
    frames, unscored = read_frames({"before": before, "after": after, **(controls or {})})
    trial = build_trial(items, frames, metric=metric, alpha=alpha)
    if labels.height and not labels["record_id"].is_in(trial.item_ids).any():
        raise BadInput("no record_id matches an item", where="labels", remedy="Give the labels of these items.")
    targets = members(slices, labels)
    target = trial.mask([item_id for ids in targets.values() for item_id in ids])
    if not target.any():
        raise BadInput(
            "no item of a target slice was answered", where="slices", remedy="Give the slices found on these items."
        )
    found = _effects(trial, target, targets, progress)
    found["regressions"] = regressions(trial, labels, ~target, margin=margin, permutations=permutations)
    disjoint = {"items": disjoint_items, "before": disjoint_before, "after": disjoint_after}
    found["disjoint"] = _disjoint(disjoint, metric, alpha)
    found["unscored"] = unscored
    found["needed"] = needed_of(found, trial, target, min_effect=min_effect)
    verdict, why = verdict_of(found, margin=margin, min_effect=min_effect)
    return {
        "verdict": verdict,
        "summary": why,
        "advice": advice_of(verdict, found, trial),
        **found,
        "pass_at_k": pass_table(items, frames["before"], frames["after"], trial.item_ids),
        "flips": trial.flip_ids(),
        "runs": {arm.name: arm.runs for arm in trial.arms},
        "samples_per_item": {arm.name: rounded(arm.samples) for arm in trial.arms},
        "metric": metric,
        "alpha": alpha,
        "margin": margin,
        "min_effect": min_effect,
        "items_used": len(trial.item_ids),
        "items_left_out": items["item_id"].n_unique() - len(trial.item_ids),
        "items_target": int(target.sum()),
    }


def _effects(
    trial: Trial, target: Mask, targets: Mapping[str, list[str]], progress: Callable[[int], None] | None
) -> dict[str, Any]:
    """Effects on everything, on the target slices together, each and in the half held out, and on the rest."""
    untouched, held_out = ~target, target & trial.half_b
    return {
        "overall": trial.group(trial.everything),
        "target": trial.group(target),
        "untouched": trial.group(untouched) if untouched.any() else None,
        "did": trial.effect(weights_of(target, minus=untouched)) if untouched.any() else None,
        "slices": _slices(trial, targets, progress),
        "controls": [_control(trial, arm, target, untouched) for arm in trial.controls],
        "held_out": trial.group(held_out) if held_out.any() else None,
    }


def _slices(
    trial: Trial, targets: Mapping[str, list[str]], progress: Callable[[int], None] | None
) -> list[dict[str, Any]]:
    """One row a target slice: its group, the effect in the half held out, and Holm's p over all of them."""
    rows = []
    for done, (slice_id, item_ids) in enumerate(targets.items(), start=1):
        inside = trial.mask(item_ids)
        if inside.any():
            half = inside & trial.half_b
            held_out = trial.effect(weights_of(half)) if half.any() else None
            row = {"slice_id": slice_id, "items": int(inside.sum())}
            rows.append(row | trial.group(inside) | {"held_out": held_out})
        if progress:
            progress(done)
    adjusted = holm([row["effect"]["p"] for row in rows])
    return [row | {"p_adjusted": p} for row, p in zip(rows, adjusted)]


def _control(trial: Trial, arm: Arm, target: Mask, untouched: Mask) -> dict[str, Any]:
    """A control arm's own effects, and how much more the targeted arm did."""
    whole = weights_of(trial.everything)
    both = weights_of(target, minus=untouched) if untouched.any() else None
    return {
        "name": arm.name,
        "runs": arm.runs,
        "overall": trial.effect(whole, better=arm),
        "target": trial.effect(weights_of(target), better=arm),
        "over_control_overall": trial.effect(whole, base=arm),
        "over_control_target": trial.effect(weights_of(target), base=arm),
        "did": trial.effect(both, base=arm) if both is not None else None,
    }


def _disjoint(given: Mapping[str, pl.DataFrame | None], metric: str, alpha: float) -> dict[str, Any] | None:
    """The overall effect on another benchmark, from its items and the outputs before and after."""
    missing = [name for name, frame in given.items() if frame is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise BadInput(
            f"a disjoint benchmark needs items, outputs before and outputs after; {missing[0]} is missing",
            where="disjoint benchmark",
            remedy="Give all three.",
        )
    frames, _ = read_frames({"before": given["before"], "after": given["after"]})
    trial = build_trial(given["items"], frames, metric=metric, alpha=alpha)
    return trial.group(trial.everything) | {"items": len(trial.item_ids)}

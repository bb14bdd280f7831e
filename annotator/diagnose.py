"""Can training data be the cause of a drop at all? Comparability, then causes, then what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from annotator.diagnosis.causes import BY_ID, CAUSES, INCOMPARABLE
from annotator.diagnosis.comparability import comparability
from annotator.diagnosis.findings import FEWEST_ITEMS, RECOVERED, RISE, Finding, examples, look, mean_score
from annotator.diagnosis.recovery import Pair, axis_shape, resampling_weights
from annotator.diagnosis.rescore import evidence, item_means
from annotator.diagnosis.unscored import without_unscored
from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.scores import check_scores, one_run, paired_change
from annotator.slicing.outcomes import outcomes, rounded
from annotator.taxonomy import AXES

_SURE_GAIN = 0.02  # what re-scoring must add to a run without a reference, at the lower end of its interval


def diagnose(
    items: pl.DataFrame,
    samples: pl.DataFrame,
    *,
    reference: pl.DataFrame | None = None,
    labels: pl.DataFrame | None = None,
    run: str | None = None,
    reference_run: str | None = None,
    config: Mapping[str, Any] | None = None,
    reference_config: Mapping[str, Any] | None = None,
    bootstraps: int = 1000,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Say whether data can be the cause of a low score, and what else is.

    A cause counts when its sign is at least 10 points more frequent than in the reference run (half the drop, for drops
    below 20 points), and it is believed when undoing it, in both runs alike, recovers at least half of the drop at the
    lower end of a paired bootstrap interval.

    Args:
        items: item_id, target, choices?, cluster_id?.
        samples, reference: outputs of one run each: item_id, score, and as far as known response, finish_reason,
            max_tokens, prompt or prompt_hash, decoding settings, ... Every column that is a setting is compared.
        labels: LABELS table, for the shape of the drop over the axes.
        run, reference_run: which run is meant, where a frame holds several.
        config, reference_config: settings of the whole run, keys as in the harness's results file.
        bootstraps: resamples of items (fewer above 20,000 items).
        progress: called with the number of outputs read.

    Returns:
        diagnosis.json: verdict "not_data" (a cause is believed), "data" (texts are there, no cause explains half of the
        drop, and a drop is left) or "inconclusive"; cause (id or null), drop, drop_interval, recovered_share,
        residual_drop, residual, causes, axis_shape, comparability, advice (sentences), summary, examples, runs,
        items_used.

    Raises:
        BadInput: ids match nothing, several runs in one frame, a score outside 0..1.
    """
    here, unscored = _run(samples, items, run, "samples")
    if reference is None:
        return _single(items, here, labels, progress) | {"unscored": {"here": unscored, "reference": None}}
    there, theirs = _run(reference, items, reference_run, "reference samples")
    compared, ids = comparability(here, there, config=config, reference_config=reference_config)
    if not compared["items_common"]:
        raise BadInput(
            "the two runs share no item", where="reference samples", remedy="Give outputs for the same benchmark."
        )
    common = sorted(set(here["item_id"].to_list()) & set(there["item_id"].to_list()))
    whole = _pair(items, here, there, common, bootstraps, progress)
    drop = whole.interval()
    findings, pair, compared_ids = _findings(whole, compared, common, ids)
    leading = next((found for found in findings if found.explains), None)
    left, residual = _residual(pair, findings, leading)
    shape = _shape(items, labels, compared_ids, left)
    texts = all(seen["response"].is_not_null().mean() >= 0.5 for seen in (pair.here, pair.reference))
    verdict, cause, why = _verdict(findings, leading, drop, residual, shape, texts)
    believed = leading or next((found for found in findings if found.cause.id == cause), None)
    return {
        "verdict": verdict,
        "cause": cause,
        "summary": why,
        "drop": rounded(drop["estimate"], 6),
        "drop_interval": {key: rounded(drop[key], 6) for key in ("low", "high", "p")},
        "recovered_share": _share(believed.recovered if believed else None),
        "residual_drop": rounded(residual["estimate"], 6),
        "residual": {key: value if key == "items" else rounded(value, 6) for key, value in residual.items()},
        "causes": [found.as_json() for found in findings],
        "axis_shape": shape,
        "comparability": compared,
        "advice": _advice(verdict, cause, findings, residual) + _about_unscored(unscored, theirs),
        "examples": [example for found in findings if found.triggered for example in examples(found, pair.here)],
        "runs": {"here": _name(here), "reference": _name(there)},
        "scores": {"here": mean_score(whole.here), "reference": mean_score(whole.reference)},
        "items_used": len(common),
        "unscored": {"here": unscored, "reference": theirs},
    }


def _run(samples: pl.DataFrame, items: pl.DataFrame, run: str | None, where: str) -> tuple[pl.DataFrame, int]:
    """The scored outputs of one run on known items, and how many outputs of that run have no score."""
    scored, unscored = without_unscored(samples, where=where)
    mine = one_run(scored, run=run, where=where)
    check_scores(mine)
    if mine.height < scored.height:  # one of several runs was chosen
        unscored = samples.filter(pl.col("run") == run).height - mine.height
    known = mine.join(items.select("item_id").unique(), on="item_id", how="semi")
    if known.is_empty():
        raise BadInput(
            "no item_id matches an item",
            where=where,
            remedy=f"Items look like {items['item_id'].min()!r}, {where} like {samples['item_id'].min()!r}.",
        )
    return known, unscored


def _pair(items, here, there, common, bootstraps, progress) -> Pair:
    wanted = pl.Series("item_id", common)
    seen = evidence(items, here.filter(pl.col("item_id").is_in(wanted.implode())), progress=progress)
    theirs = evidence(items, there.filter(pl.col("item_id").is_in(wanted.implode())), progress=progress)
    lengths = theirs.group_by("item_id").agg(reference_length=pl.col("response").str.len_chars().median())
    seen = seen.join(lengths, on="item_id", how="left", maintain_order="left")
    joined = outcomes(items, here.filter(pl.col("item_id").is_in(wanted.implode())))
    seed = int(fingerprint(["diagnose", joined.digest])[:16], 16)
    times = int(min(bootstraps, max(100, 20_000_000 // len(common))))
    weights = resampling_weights(len(common), joined.clusters, seed=seed, bootstraps=times)
    return Pair(seen, theirs, joined.clusters, weights)


def _findings(
    whole: Pair, compared: dict[str, Any], common: list[str], same: pl.Series
) -> tuple[list[Finding], Pair, list[str]]:
    """Every cause looked at, and the pair and items on which those of the outputs were.

    What makes runs incomparable is looked for on all items; the rest where prompts and documents agree, if enough do,
    or a changed target would look like a fault of extraction.
    """
    comparable = np.isin(np.array(common), same.to_numpy())
    drop = whole.interval()["estimate"]
    findings = [look(cause, whole, compared, comparable, drop) for cause in CAUSES[: len(INCOMPARABLE)]]
    pair, kept = whole, common
    if comparable.sum() >= FEWEST_ITEMS and not comparable.all():
        pair, kept = whole.restricted(comparable), [item_id for item_id, alike in zip(common, comparable) if alike]
    everything = np.ones(len(kept), dtype=bool)
    own = pair.interval()["estimate"]
    findings += [look(cause, pair, compared, everything, own) for cause in CAUSES[len(INCOMPARABLE) :]]
    return findings, pair, kept


def _residual(pair: Pair, findings: list[Finding], leading: Finding | None):
    """Per-item drop that is left when what was found is undone, and its interval over the items that remain."""
    undone = [found for found in findings if found.triggered and found.marks and found.cause.id not in INCOMPARABLE]
    rule = leading.rule if leading and leading.rule else _best_rule(undone)
    masks = []
    for at, seen in enumerate((pair.here, pair.reference)):
        out = np.zeros(seen.height, dtype=bool)
        for found in undone:
            if found.rule is None:
                out |= found.marks[at]
        masks.append(out)
    left, keep = pair.drop_without(*masks, rule=rule)
    kept = keep > 0
    clusters = None if pair.clusters is None else pair.clusters[kept]
    if kept.sum() < FEWEST_ITEMS:
        return left, {"estimate": math.nan, "low": math.nan, "high": math.nan, "p": math.nan, "items": int(kept.sum())}
    return np.where(kept, left, math.nan), paired_change(left[kept], clusters) | {"items": int(kept.sum())}


def _best_rule(undone: list[Finding]) -> str:
    by_rule = [found for found in undone if found.rule and (found.recovered or {}).get("estimate") is not None]
    best = max(by_rule, key=lambda found: found.recovered["estimate"], default=None)
    return best.rule if best and best.recovered["estimate"] > 0 else "as_logged"


def _shape(items, labels, common, left) -> dict[str, dict[str, float | None]]:
    """eta^2 and p of each axis over the residual drop."""
    if labels is None:
        return {}
    keyed = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    frame = pl.DataFrame({"item_id": common, "left": left}).join(
        keyed.select(pl.col("record_id").alias("item_id"), *AXES).unique("item_id"), on="item_id", how="left"
    )
    frame = frame.filter(pl.col("left").is_not_nan()).sort("item_id")
    if frame.height < FEWEST_ITEMS:
        return {}
    primary = pl.col("solving_operation").list.first()
    frame = frame.with_columns(primary)
    values = {axis: frame[axis].to_list() for axis in AXES}
    seed = int(fingerprint(["shape", frame["item_id"].to_list()])[:16], 16)
    shape = axis_shape(frame["left"].to_numpy(), values, seed=seed, permutations=999 if frame.height <= 20_000 else 199)
    return {axis: {key: rounded(value, 6) for key, value in found.items()} for axis, found in shape.items()}


def _verdict(findings, leading, drop, residual, shape, texts) -> tuple[str, str | None, str]:
    if not drop["low"] > 0:
        return "inconclusive", "noise", "The run does not score lower than the reference beyond chance."
    if leading:
        share = f"{leading.recovered['estimate']:.0%} of the drop of {100 * drop['estimate']:.1f} points"
        return "not_data", leading.cause.id, f"Undoing it recovers {share}: {leading.cause.what}."
    unlike = [found.cause.id for found in findings if found.cause.id in INCOMPARABLE and _may_explain(found)]
    if unlike:
        return "inconclusive", unlike[0], f"The runs cannot be compared: {BY_ID[unlike[0]].what}."
    if not texts:
        return "inconclusive", None, "The logs hold no output texts, so faults of the harness cannot be ruled out."
    if not residual["low"] > 0:
        partly = [found for found in findings if found.triggered and found.recovered]
        cause = max(partly, key=lambda found: found.recovered["estimate"] or 0.0).cause.id if partly else None
        return "inconclusive", cause, "What is left of the drop after re-scoring is within chance."
    if _loads_on_form(shape):
        return "inconclusive", None, "The drop follows the output constraint and no operation: look for a format fault."
    partly = [found for found in findings if found.recovered and _may_explain(found)]
    if partly:
        return "inconclusive", partly[0].cause.id, f"It may explain half of the drop, or not: {partly[0].cause.what}."
    return "data", None, f"No fault of the harness explains the drop; {100 * residual['estimate']:.1f} points are left."


def _may_explain(found: Finding) -> bool:
    """A cause that was seen, and of which it is not known that it explains less than half of the drop."""
    high = (found.recovered or {}).get("high")
    return found.triggered and (high is None or high >= RECOVERED)


def _loads_on_form(shape: Mapping[str, Mapping[str, float]]) -> bool:
    """The drop lies on the output constraint and neither on operations nor on backgrounds."""
    form = shape.get("output_constraint")
    others = [shape[axis] for axis in ("solving_operation", "background_condition") if axis in shape]
    return (
        bool(form and others)
        and form["p"] <= 0.01
        and all(other["p"] > 0.05 and other["eta2"] < form["eta2"] / 2 for other in others)
    )


def _advice(verdict: str, cause: str | None, findings: list[Finding], residual: dict[str, float]) -> list[str]:
    advice = [BY_ID[cause].advice] if cause else []
    others = [found for found in findings if found.triggered and found.cause.id not in (cause, "noise")]
    advice += [f"Also seen{_recovering(found)}: {found.cause.what}. {found.cause.advice}" for found in others]
    if verdict == "data":
        advice.append(
            "The capability is weaker. Find the slices, then check that the corpus is short of what they need before "
            "changing the mix: a weak slice alone does not convict the data."
        )
    elif verdict == "not_data" and residual["low"] > 0:
        points = 100 * residual["estimate"]
        advice.append(
            f"{points:.1f} points are left after re-scoring, so there may be a real weakness besides: compute slices "
            "on the re-scored outputs."
        )
    elif verdict == "not_data":
        advice.append("Do not change the data mix for this drop: nothing beyond chance is left after re-scoring.")
    elif not advice:
        advice.append(
            "This neither blames nor clears the data, so take slices and documents as hints. Where the logs hold no "
            "output texts, keep them in both runs (lm-evaluation-harness: --log_samples) and diagnose again."
        )
    return advice


def _about_unscored(here: int, reference: int) -> list[str]:
    if not here and not reference:
        return []
    return [
        f"Outputs without a score are left out: {here:,} here, {reference:,} in the reference. If they failed because "
        "the model did, the scores are too high: score them 0 in both runs and look again."
    ]


def _recovering(found: Finding) -> str:
    """What undoing a cause would recover, in words, where that is known."""
    share = (found.recovered or {}).get("estimate")
    return "" if share is None else f" (undoing it recovers {share:.0%} of the drop)"


def _share(recovered: dict[str, Any] | None) -> dict[str, float | None]:
    recovered = recovered or {}
    return {key: rounded(recovered.get(key), 6) for key in ("estimate", "low", "high")}


def _name(samples: pl.DataFrame) -> str | None:
    return samples["run"].drop_nulls().min() if "run" in samples.columns else None


def _single(
    items: pl.DataFrame, here: pl.DataFrame, labels: pl.DataFrame | None, progress: Callable[[int], None] | None
) -> dict[str, Any]:
    """Without a reference: which faults of scoring are visible in the run alone. Never "data"."""
    seen = evidence(items, here, progress=progress)
    joined = outcomes(items, here)
    findings, gains = [], {}
    for cause in (cause for cause in CAUSES if cause.sign and cause.id != "stop_string"):
        marks = cause.sign(seen)
        rate = float(item_means(seen, marks).mean())
        found = {"rate": rounded(rate, 6), "outputs": int(marks.sum()), "remedy": cause.rule or "leave out"}
        if cause.rule:
            gain = item_means(seen, (seen[cause.rule] - seen["as_logged"]).to_numpy())
            gains[cause.id] = paired_change(gain, joined.clusters)
            found["gain"] = {key: rounded(value, 6) for key, value in gains[cause.id].items()}
        findings.append(Finding(cause, rate >= RISE, found, marks=(marks, marks[:0]), rule=cause.rule))
    sure = [
        found for found in findings if found.triggered and gains.get(found.cause.id, {}).get("low", 0) >= _SURE_GAIN
    ]
    cause = sure[0].cause.id if sure else None
    why = (
        f"Re-scoring alone adds points: {sure[0].cause.what}."
        if sure
        else ("Without a reference run there is no drop to explain; give one with the same prompts and settings.")
    )
    verdict = "not_data" if sure else "inconclusive"
    left = joined.frame["difference"].to_numpy()
    return {
        "verdict": verdict,
        "cause": cause,
        "summary": why,
        "drop": None,
        "drop_interval": {"low": None, "high": None, "p": None},
        "recovered_share": _share(None),
        "residual_drop": None,
        "residual": {"estimate": None, "low": None, "high": None, "p": None, "items": joined.frame.height},
        "causes": [found.as_json() for found in findings],
        "axis_shape": _shape(items, labels, joined.frame["item_id"].to_list(), left),
        "comparability": {},
        "advice": [BY_ID[cause].advice] if cause else [why],
        "examples": [example for found in findings if found.triggered for example in examples(found, seen)],
        "runs": {"here": _name(here), "reference": None},
        "scores": {"here": mean_score(seen), "reference": None},
        "items_used": joined.frame.height,
    }

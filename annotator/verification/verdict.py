"""What the effects of a trial come to: a verdict, what would settle it, and advice."""

from __future__ import annotations

import math
from typing import Any

from annotator.slicing.outcomes import rounded
from annotator.verification.effects import Arm, Mask, decoding_variance, items_needed, needed_se, weights_of
from annotator.verification.trial import Trial


def verdict_of(found: dict[str, Any], *, margin: float, min_effect: float) -> tuple[str, str]:
    """(verdict, why), from the effects found: the rules stand in `annotator.verify.verify`."""
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
    points = f"{100 * target['estimate']:+z.1f} points on the target slices"
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


def needed_of(found: dict[str, Any], trial: Trial, target: Mask, *, min_effect: float) -> dict[str, dict[str, Any]]:
    """For each open question, how many items or samples would show an effect of the size seen (at least min_effect).

    Returns:
        question ("gain", "over CONTROL") -> effect, items_now, items_needed (more items of the same kind), samples_now
        (an item and run), samples_needed (null where no number of samples is enough, or their noise is not known).
    """
    questions = {"gain": (found["target"]["effect"], trial.before)}
    questions |= {f"over {arm.name}": (found["target"]["over_controls"][arm.name], arm) for arm in trial.controls}
    needed = {}
    for question, (seen, base) in questions.items():
        if not seen["se"]:
            continue
        size = max(abs(seen["estimate"]), min_effect)
        samples = min(trial.after.samples, base.samples)
        needed[question] = {
            "effect": rounded(size),
            "items_now": seen["items"],
            "items_needed": items_needed(size, seen["se"], seen["items"], alpha=trial.alpha),
            "samples_now": rounded(samples),
            "samples_needed": _samples_needed(size, seen["se"], samples, target, trial.after, base, trial.alpha),
        }
    return needed


def _samples_needed(
    size: float, se: float, samples: float, target: Mask, after: Arm, base: Arm, alpha: float
) -> int | None:
    """Samples an item at which the effect would show: decoding noise shrinks with them, all other doubt stays."""
    parts = [decoding_variance(weights_of(target), arm) for arm in (after, base)]
    if None in parts:
        return None
    room = needed_se(size, alpha=alpha) ** 2 - max(0.0, se**2 - sum(parts))
    return math.ceil(samples * sum(parts) / room) if room > 0 else None


def advice_of(verdict: str, found: dict[str, Any], trial: Trial) -> list[str]:
    """What to do next, and what the trial cannot tell, in sentences."""
    advice = _unscored(found["unscored"])
    if not trial.controls:
        advice.append(
            "There is no control arm, so the gain may come from training as such, or from regression to the mean of "
            "slices that were chosen for scoring low. Train a control on as many random in-domain documents."
        )
    if verdict == "inconclusive":
        advice += [_how_many(question, need) for question, need in found["needed"].items() if _too_few(need)]
    if len(trial.after.runs) == 1:
        advice.append("One training run: the intervals hold for this checkpoint, not for the recipe. Train more seeds.")
    if found["regressions"]["non_inferior"] is False:
        low = found["regressions"]["low"]
        advice.append(f"Outside the targets a loss of up to {-100 * low:.1f} points cannot be ruled out.")
    if found["disjoint"] is None:
        advice.append("No disjoint benchmark was given: a gain on items of one benchmark may not carry over.")
    return advice


def _too_few(need: dict[str, Any]) -> bool:
    return need["items_needed"] > need["items_now"]


def _how_many(question: str, need: dict[str, Any]) -> str:
    samples = need["samples_needed"]
    otherwise = f", or about {samples:,} samples an item instead of {need['samples_now']:g}" if samples else ""
    return (
        f"The sample is too small to tell ({question}; {100 * need['effect']:.1f} points): it takes about "
        f"{need['items_needed']:,} target items at these samples, and there are {need['items_now']:,}{otherwise}."
    )


def _unscored(unscored: dict[str, int]) -> list[str]:
    counts = [f"{count:,} of {name}" for name, count in unscored.items() if count]
    if not counts:
        return []
    return [
        f"Outputs without a score are left out ({', '.join(counts)}). If they failed because the model did, the scores "
        "are too high: score them 0."
    ]

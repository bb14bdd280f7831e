"""The learning curve of a student: what labels bought so far, and whether more of the same will buy anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from annotator.distillation.heads import Fits, Lesson, held_out_scores, kappa, random_folds
from annotator.fingerprint import fingerprint
from annotator.judges import student

SHARES = (0.25, 0.5, 0.75, 1.0)
LITTLE = 0.01  # kappa; less than this is not worth the price of a third more labels


def learning_curve(
    rows: np.ndarray, lesson: Lesson, start: Fits | None, whole: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Held-out kappa with a quarter, half, three quarters and all of the labels.

    Args:
        whole: held-out scores with all labels, by `random_folds`.

    Returns:
        labels [int], kappa {axis: [one for each number of labels]}, mean [mean over the axes], per_doubling (slope of
        the mean over log2 of the labels, least squares: what twice as many would add if it went on like this), noise
        (standard error of the last step of the mean, bootstrap over texts), advice (a sentence).
        The parts are nested, and chosen by a hash of the id.
    """
    ids = lesson.ids[: lesson.labelled]
    rank = np.argsort(np.argsort([fingerprint(["curve", name]) for name in ids], kind="stable"), kind="stable")
    counts = [round(share * lesson.labelled) for share in SHARES]
    folds = random_folds(ids)
    axes = [name for name in lesson.targets if name != student.OPERATION_SET]
    # Without the set head, which costs as much as all others together and has no kappa.
    part = replace(lesson, targets={axis: lesson.targets[axis] for axis in axes})
    outcomes = [held_out_scores(rows, part, folds, start, kept=rank < count) for count in counts[:-1]] + [whole]
    wanted = {axis: lesson.targets[axis][1][: lesson.labelled] for axis in axes}
    kappas = {
        axis: [kappa(outcome[axis].argmax(axis=1), wanted[axis].argmax(axis=1)) for outcome in outcomes]
        for axis in axes
    }
    mean = np.mean([kappas[axis] for axis in axes], axis=0)
    slope = float(np.polyfit(np.log2(counts), mean, 1)[0])
    noise = _noise_of_last_step(outcomes, wanted, fingerprint(sorted(ids.tolist())))
    return {
        "labels": counts,
        "kappa": kappas,
        "mean": [round(float(each), 4) for each in mean],
        "per_doubling": round(slope, 4),
        "noise": round(noise, 4),
        "advice": _advice(float(mean[-1] - mean[-2]), slope, noise),
    }


def _noise_of_last_step(outcomes: list[dict[str, np.ndarray]], wanted: dict[str, np.ndarray], seed: str) -> float:
    """Standard deviation over 200 resamples of the texts of the mean gain in agreement from three quarters to all.

    Of plain agreement over what chance leaves room for: kappa itself, but for the small change of chance.
    """
    gains = []
    for axis, truth in wanted.items():
        right = [(outcome[axis].argmax(axis=1) == truth.argmax(axis=1)).astype(np.float64) for outcome in outcomes]
        room = 1.0 - float((truth.mean(axis=0) ** 2).sum())
        gains.append((right[-1] - right[-2]) / max(room, 1e-9))
    gain = np.mean(gains, axis=0)
    generator = np.random.default_rng(int(seed[:16], 16))
    return float(np.std([gain[generator.integers(0, len(gain), len(gain))].mean() for _ in range(200)]))


def _advice(gain: float, slope: float, noise: float) -> str:
    told = f"The last 25 % of the labels bought {gain:+.3f} kappa on average over the axes (± {1.96 * noise:.3f})"
    if gain < LITTLE and gain + 1.96 * noise < 2 * LITTLE:
        return f"{told}: labelling more of the same buys little."
    if gain - 1.96 * noise <= 0:
        return f"{told}: within the noise, so these labels are too few to tell."
    return f"{told}: more labels still help; twice as many may add about {slope:+.3f}."

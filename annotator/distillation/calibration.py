"""From held-out scores to probabilities, to the threshold of further operations, and to what abstaining buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from annotator.distillation.heads import Lesson, score_confidence
from annotator.judges.student import OPERATION_SET, Calibration, log_odds, softmax
from annotator.taxonomy import AXES, MAX_OPERATIONS

_SET_THRESHOLDS = np.round(np.arange(0.1, 0.91, 0.05), 2)
_CONFIDENCES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def fit_calibrations(outcomes: Sequence[Mapping[str, np.ndarray]], lesson: Lesson) -> dict[str, Calibration]:
    """One for each head of one value, on some sets of held-out scores (head name -> texts x values) taken together."""
    found = {}
    for name, (_, target) in lesson.targets.items():
        if name != OPERATION_SET:
            together = np.concatenate([outcome[name] for outcome in outcomes])
            found[name] = _fit_calibration(together, np.concatenate([target[: lesson.labelled]] * len(outcomes)))
    return found


def _fit_calibration(scores: np.ndarray, target: np.ndarray) -> Calibration:
    """The calibration of least cross-entropy on held-out texts (texts x values: scores, and 1 for the right value)."""

    def of_all(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        return float((scipy.special.logsumexp(scaled, axis=1) - (target * scaled).sum(axis=1)).mean())

    found = scipy.optimize.minimize_scalar(of_all, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    odds = log_odds(softmax(scores / temperature).max(axis=1))
    sign = np.where(scores.argmax(axis=1) == target.argmax(axis=1), 1.0, -1.0)

    def of_highest(line: np.ndarray) -> float:
        away = (line[0] - 1.0) ** 2 + line[1] ** 2  # keeps it finite where all answers are right
        return float(np.logaddexp(0.0, -sign * (line[0] * odds + line[1])).sum() + away)

    slope, offset = scipy.optimize.minimize(of_highest, [1.0, 0.0], method="L-BFGS-B").x
    return Calibration(*(round(float(each), 4) for each in (temperature, slope, offset)))


def fit_set_threshold(held_out: Mapping[str, np.ndarray], lesson: Lesson) -> float:
    """The membership probability above which a further operation is named: best mean overlap (Jaccard) of the sets."""
    wanted = lesson.targets[OPERATION_SET][1][: lesson.labelled]
    likely = scipy.special.expit(held_out[OPERATION_SET])
    first = held_out["solving_operation"].argmax(axis=1)
    names, (all_names, _) = lesson.targets["solving_operation"][0], lesson.targets[OPERATION_SET]
    primary = np.array([all_names.index(name) for name in names])[first]
    likely[np.arange(len(likely)), primary] = 1.0
    rank = np.argsort(np.argsort(-likely, axis=1, kind="stable"), axis=1, kind="stable")
    overlap = []
    for threshold in _SET_THRESHOLDS:
        given = (likely >= threshold) & (rank < MAX_OPERATIONS)
        overlap.append(((given & (wanted > 0)).sum(axis=1) / (given | (wanted > 0)).sum(axis=1)).mean())
    return float(_SET_THRESHOLDS[int(np.argmax(np.round(overlap, 9)))])


def pooled_confidence(
    held_out: Mapping[str, np.ndarray], lesson: Lesson, calibrations: Mapping[str, Calibration]
) -> dict[str, float]:
    """`score_confidence` over the answers of all heads together: more of them than one axis has to tell it from chance.

    Args:
        held_out: head name -> scores of every labelled text by heads that never saw it.
    """
    sure = [calibration.sure(held_out[name]) for name, calibration in calibrations.items()]
    wanted = {name: lesson.targets[name][1][: lesson.labelled].argmax(axis=1) for name in calibrations}
    right = [held_out[name].argmax(axis=1) == wanted[name] for name in calibrations]
    return score_confidence(np.concatenate(sure), np.concatenate(right))


def abstention_curve(
    held_out: Mapping[str, np.ndarray], lesson: Lesson, calibrations: Mapping[str, Calibration]
) -> dict[str, list[Any]]:
    """What a student that abstains below a confidence labels, and how well (El-Yaniv and Wiener 2010, JMLR).

    Args:
        held_out: head name -> scores of every labelled text by heads that never saw it.

    Returns:
        below [confidences: the least over the four axes, as in the column `confidence`], labelled [the share of records
        that still get a label], agreement {axis: [share of those that are right; null where none is left]}.
    """
    wanted = {axis: lesson.targets[axis][1][: lesson.labelled].argmax(axis=1) for axis in AXES}
    right = {axis: held_out[axis].argmax(axis=1) == wanted[axis] for axis in AXES}
    confidence = np.min([calibrations[axis].sure(held_out[axis]) for axis in AXES], axis=0)
    kept = [confidence >= below for below in _CONFIDENCES]
    return {
        "below": list(_CONFIDENCES),
        "labelled": [round(float(some.mean()), 4) for some in kept],
        "agreement": {
            axis: [round(float(right[axis][some].mean()), 4) if some.any() else None for some in kept] for axis in AXES
        },
    }

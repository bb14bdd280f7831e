"""Linear heads on the rows of a Gram matrix: fitted, and scored on folds that they never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special

from annotator.fingerprint import fingerprint
from annotator.judges import features, student
from annotator.taxonomy import Kind

PENALTY = 0.02
_FOLDS = 5

RANK = 4000  # of the texts' rows: with 1,500 of 3,824, kappa of the grades on unseen sources fell by .03 to .06

Fits = dict[str, tuple[np.ndarray, np.ndarray]]
"""head name -> (weights: RANK or fewer x values, bias of each value)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one side learns from: texts with their sources, and the values of each head.

    encoded: the embeddings of the texts, where the student is to see them.
    targets: head name -> (values in taxonomy order, matrix of texts x values, rows sum to 1; the set head is 0/1).
    labelled: how many of the texts, from the first, carry the user's labels. The rest are written examples: learnt from
        in every fold, with `weight` 2 for 1, and never scored.
    fitted: called after each fit of the heads, of which there are `fits`.
    """

    kind: Kind
    batch: features.Batch
    encoded: np.ndarray | None
    sources: np.ndarray
    ids: np.ndarray
    targets: dict[str, tuple[tuple[str, ...], np.ndarray]]
    labelled: int
    weight: np.ndarray
    fitted: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts in as few dimensions as tell them apart: `texts @ texts.T` is nearly the Gram matrix of their features.

    There are far more features than texts. By the representer theorem the best weights are a mix of the training
    texts, so a head is fitted in the space that the texts span. Of that only the RANK widest directions are kept (the
    leading eigenvectors of the Gram matrix), so that the time of a fit grows with the texts and not with their square.

    texts: texts x directions. mixes: texts x directions, the mix of texts that each direction is.
    """

    texts: np.ndarray
    mixes: np.ndarray


def reduced(gram: np.ndarray) -> Rows:
    """The rows of a Gram matrix, by subspace iteration from a seeded start (Halko, Martinsson and Tropp 2011)."""
    count = len(gram)
    if count <= RANK:
        values, vectors = scipy.linalg.eigh(gram)
    else:
        basis = np.random.default_rng(0).standard_normal((count, RANK + 100))
        for _ in range(3):
            basis = scipy.linalg.qr(gram @ basis, mode="economic")[0]
        values, inner = scipy.linalg.eigh(basis.T @ gram @ basis)
        vectors = basis @ inner
    values, vectors = values[::-1][:RANK], vectors[:, ::-1][:, :RANK]
    kept = values > 1e-8 * max(values[0], 1e-300)
    length = np.sqrt(values[kept])
    return Rows(vectors[:, kept] * length, vectors[:, kept] / length)


def fit_heads(rows: np.ndarray, lesson: Lesson, train: np.ndarray, *, start: Fits | None = None) -> Fits:
    """All heads fitted on some of the texts.

    Args:
        rows: `Rows.texts` of all texts. train: positions of those to learn from.
        start: where to begin, such as the heads of the written examples. It must not have seen what is held out: the
            search is stopped early, and what it began with would show.
    """
    learnt, weight = np.ascontiguousarray(rows[train]), lesson.weight[train]
    heads = {
        name: _fit(learnt, target[train], weight, start and start[name], is_set=name == student.OPERATION_SET)
        for name, (_, target) in lesson.targets.items()
    }
    lesson.fitted()
    return heads


def _fit(
    rows: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    begin: tuple[np.ndarray, np.ndarray] | None,
    *,
    is_set: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of least penalised cross-entropy: softmax over values, or one sigmoid each for the set head."""
    total_weight, width, values = weight.sum(), rows.shape[1], target.shape[1]
    across = np.ascontiguousarray(rows.T)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: width * values].reshape(width, values), flat[width * values :]
        scores = rows @ weights + bias
        if is_set:
            each = (np.logaddexp(0.0, scores) - target * scores).sum(axis=1)
            slope = scipy.special.expit(scores) - target
        else:
            highest = scores.max(axis=1, keepdims=True)
            raised = np.exp(scores - highest)
            total = raised.sum(axis=1, keepdims=True)
            each = (highest + np.log(total))[:, 0] - (target * scores).sum(axis=1)
            slope = raised / total - target
        slope *= weight[:, None]
        gradient = np.concatenate([(across @ slope + PENALTY * weights).ravel(), slope.sum(axis=0)])
        penalised = (weight * each).sum() + 0.5 * PENALTY * (weights * weights).sum()
        return penalised / total_weight, gradient / total_weight

    first = np.zeros(width * values + values) if begin is None else np.concatenate([each.ravel() for each in begin])
    found = scipy.optimize.minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 60, "gtol": 1e-4})
    return found.x[: width * values].reshape(width, values), found.x[width * values :]


def fit_examples(rows: np.ndarray, lesson: Lesson) -> Fits | None:
    """The heads of the written examples alone, None without any: a start for all others, since no fold holds them out.

    It saves most of the steps where labels are few beside the examples.
    """
    examples = np.arange(lesson.labelled, len(rows))
    return fit_heads(rows, lesson, examples) if len(examples) else None


def held_out_scores(
    rows: np.ndarray, lesson: Lesson, folds: np.ndarray, start: Fits | None, *, kept: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Scores of every labelled text by heads that never saw its fold: head name -> texts x values.

    kept: whether each labelled text may be learnt from (default: all); held-out texts are scored all the same.
    """
    outcome = {name: np.zeros((lesson.labelled, len(values))) for name, (values, _) in lesson.targets.items()}
    examples = np.arange(lesson.labelled, len(rows))
    kept = np.ones(lesson.labelled, dtype=bool) if kept is None else kept
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        train = np.concatenate([np.flatnonzero((folds != fold) & kept), examples])
        if not len(train):  # a single source: nothing to learn from
            continue
        for name, (weights, bias) in fit_heads(rows, lesson, train, start=start).items():
            outcome[name][test] = rows[test] @ weights + bias
    return outcome


def random_folds(ids: np.ndarray) -> np.ndarray:
    """Folds from a hash of the id: the same whatever else is in the table."""
    return np.array([int(fingerprint(name)[:8], 16) % _FOLDS for name in ids])


def source_folds(sources: np.ndarray) -> np.ndarray:
    """Whole sources spread over at most 10 folds of like size, largest first."""
    names, sizes = np.unique(sources, return_counts=True)
    filled, fold_of = np.zeros(min(2 * _FOLDS, len(names)), dtype=np.int64), {}
    for place in np.argsort(-sizes, kind="stable"):
        fold_of[names[place]] = int(np.argmin(filled))
        filled[fold_of[names[place]]] += sizes[place]
    return np.array([fold_of[name] for name in sources])


def score(scores: np.ndarray, target: np.ndarray, calibration: student.Calibration) -> dict[str, float]:
    """kappa, macro_f1 and ece of the highest score."""
    return score_answers(scores.argmax(axis=1), target.argmax(axis=1), calibration.sure(scores))


def score_answers(given: np.ndarray, wanted: np.ndarray, sure: np.ndarray) -> dict[str, float]:
    """Agreement of integer answers with the wanted ones.

    Returns:
        kappa: Cohen (1960). macro_f1: unweighted mean over the values that are wanted at least once. Rounded to 4
        places. ece, ece_floor: see `score_confidence`.
    """
    f1 = []
    for value in np.unique(wanted):
        both = float(((given == value) & (wanted == value)).sum())
        f1.append(2.0 * both / float((given == value).sum() + (wanted == value).sum()))
    agreement = {"kappa": kappa(given, wanted), "macro_f1": round(float(np.mean(f1)), 4)}
    return agreement | score_confidence(sure, given == wanted)


def score_confidence(sure: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """How well the probabilities of some answers fit how often they are right.

    Returns:
        ece: expected calibration error over ten bins of equal width (Naeini et al. 2015). ece_floor: what it would be
        by chance, were every answer right as often as it says (mean of 100 draws). Rounded to 4 places.
    """
    generator = np.random.default_rng(0)
    by_chance = [calibration_error(sure, generator.random(len(sure)) < sure) for _ in range(100)]
    return {"ece": round(calibration_error(sure, right), 4), "ece_floor": round(float(np.mean(by_chance)), 4)}


def kappa(given: np.ndarray, wanted: np.ndarray) -> float:
    """Cohen's kappa of two columns of integers, rounded to 4 places."""
    agree = float((given == wanted).mean())
    chance = float(sum((given == value).mean() * (wanted == value).mean() for value in np.union1d(given, wanted)))
    return round((agree - chance) / (1.0 - chance) if chance < 1.0 else 1.0, 4)


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Mean gap between how sure the answers are and how often right, over ten bins of equal width."""
    place = np.minimum((sure * 10).astype(int), 9)
    said, were = (np.bincount(place, weights=column, minlength=10) for column in (sure, right))
    return float(np.abs(said - were).sum() / max(len(sure), 1))

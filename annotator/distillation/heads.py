"""Linear heads on a Gram matrix: fitted, and scored on folds that they never saw."""

from __future__ import annotations

from collections.abc import Iterator
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

Duals = dict[str, tuple[np.ndarray, np.ndarray]]
"""head name -> (texts x values: each value's weights as a mix of the texts, bias of each value)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one side learns from: texts with their sources, and the values of each head.

    encoded: the embeddings of the texts, where the student is to see them.
    targets: head name -> (values in taxonomy order, matrix of texts x values, rows sum to 1; the set head is 0/1).
    labelled: how many of the texts, from the first, carry the user's labels. The rest are written examples: learnt from
        in every fold, with `weight` 2 for 1, and never scored.
    """

    kind: Kind
    batch: features.Batch
    encoded: np.ndarray | None
    sources: np.ndarray
    ids: np.ndarray
    targets: dict[str, tuple[tuple[str, ...], np.ndarray]]
    labelled: int
    weight: np.ndarray


def root_of(gram: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of a Gram matrix.

    There are far more features than texts. By the representer theorem the best weights are a mix of the training rows,
    so a head is fitted on the rows of this square factor instead: the same optimum, hundreds of times cheaper.
    """
    return scipy.linalg.cholesky(gram + 1e-6 * np.eye(len(gram)), lower=True)


def fit_heads(gram: np.ndarray, lesson: Lesson, train: np.ndarray, *, start: Duals | None = None) -> Duals:
    """All heads fitted on some of the texts.

    Args:
        gram: of all texts. train: positions of those to learn from.
        start: where to begin, such as the heads of the written examples. It must not have seen what is held out: the
            search is stopped early, and what it began with would show.
    """
    root = root_of(gram[np.ix_(train, train)])
    fitted = {}
    for name, (_, target) in lesson.targets.items():
        begin = None
        if start is not None:
            dual, bias = start[name]
            begin = np.concatenate([(root.T @ dual[train]).ravel(), bias])
        weights, bias = _fit(root, target[train], lesson.weight[train], begin, is_set=name == student.OPERATION_SET)
        dual = np.zeros((len(gram), target.shape[1]))
        dual[train] = scipy.linalg.solve_triangular(root, weights, lower=True, trans="T")
        fitted[name] = dual, bias
    return fitted


def _fit(
    rows: np.ndarray, target: np.ndarray, weight: np.ndarray, begin: np.ndarray | None, *, is_set: bool
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

    first = np.zeros(width * values + values) if begin is None else begin
    found = scipy.optimize.minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 60, "gtol": 1e-4})
    return found.x[: width * values].reshape(width, values), found.x[width * values :]


def fit_examples(gram: np.ndarray, lesson: Lesson) -> Duals | None:
    """The heads of the written examples alone, None without any: a start for all others, since no fold holds them out.

    It saves most of the steps where labels are few beside the examples.
    """
    examples = np.arange(lesson.labelled, len(gram))
    return fit_heads(gram, lesson, examples) if len(examples) else None


def held_out_scores(
    gram: np.ndarray, lesson: Lesson, folds: np.ndarray, start: Duals | None, *, kept: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Scores of every labelled text by heads that never saw its fold: head name -> texts x values.

    kept: whether each labelled text may be learnt from (default: all); held-out texts are scored all the same.
    """
    outcome = {name: np.zeros((lesson.labelled, len(values))) for name, (values, _) in lesson.targets.items()}
    examples = np.arange(lesson.labelled, len(gram))
    kept = np.ones(lesson.labelled, dtype=bool) if kept is None else kept
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        train = np.concatenate([np.flatnonzero((folds != fold) & kept), examples])
        if not len(train):  # a single source: nothing to learn from
            continue
        for name, (dual, bias) in fit_heads(gram, lesson, train, start=start).items():
            outcome[name][test] = gram[np.ix_(test, train)] @ dual[train] + bias
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


def score(scores: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """kappa, macro_f1 and ece of the highest score."""
    probability = student.softmax(scores)
    given, wanted = scores.argmax(axis=1), target.argmax(axis=1)
    return score_answers(given, wanted, probability.max(axis=1))


def score_answers(given: np.ndarray, wanted: np.ndarray, sure: np.ndarray) -> dict[str, float]:
    """Agreement of integer answers with the wanted ones.

    Returns:
        kappa: Cohen (1960). macro_f1: unweighted mean over the values that are wanted at least once. ece: expected
        calibration error over ten bins of equal width (Naeini et al. 2015). Rounded to 4 places.
    """
    values = np.union1d(given, wanted)
    agree = float((given == wanted).mean())
    chance = float(sum((given == value).mean() * (wanted == value).mean() for value in values))
    f1 = []
    for value in np.unique(wanted):
        both = float(((given == value) & (wanted == value)).sum())
        f1.append(2.0 * both / float((given == value).sum() + (wanted == value).sum()))
    kappa = (agree - chance) / (1.0 - chance) if chance < 1.0 else 1.0
    error = sum(_gap(sure[inside], (given == wanted)[inside]) * inside.mean() for inside in _bins(sure))
    return {"kappa": round(kappa, 4), "macro_f1": round(float(np.mean(f1)), 4), "ece": round(float(error), 4)}


def _bins(sure: np.ndarray) -> Iterator[np.ndarray]:
    place = np.minimum((sure * 10).astype(int), 9)
    for number in range(10):
        if (place == number).any():
            yield place == number


def _gap(sure: np.ndarray, right: np.ndarray) -> float:
    return abs(float(sure.mean()) - float(right.mean()))

"""The quality of the embedded judges beside simpler ones that learn from the same labels, as one table.

    python scripts/bench_judge.py --gold ../shared/gold --data ../shared/data [--side item] [--skip-unseen]

seen: trained on silver + dev, scored on test.jsonl (the same sources). unseen: whole benchmarks or corpus sources of
silver + dev held out, ten folds. Baselines: the commonest value; TF-IDF with logistic regression (scikit-learn);
fastText with a model an axis, and with one model for all of them, which is the fastest (fasttext-community or
fasttext-numpy2-wheel; left out with a remark where neither is installed). All learn
from the written examples too, as the embedded judges do; with --labels-only they learn from silver + dev alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from train_embedded import read_gold, read_texts

from annotator.distill import ALL_ANSWERS, written_examples
from annotator.distillation.heads import score_answers, source_folds
from annotator.judges.features import window
from annotator.judges.student import embedded_path
from annotator.taxonomy import AXES, GRADES

try:
    import fasttext
except ImportError:
    fasttext = None

Answers = tuple[np.ndarray, np.ndarray]  # values, and the probability of each
Values = dict[str, np.ndarray]  # axis -> the value of each text
Method = Callable[[Sequence[str], Values, Sequence[str]], dict[str, Answers]]


def majority(_texts: Sequence[str], labels: Values, asked: Sequence[str]) -> dict[str, Answers]:
    """The commonest training value of each axis, with its share as probability."""
    return {axis: _commonest(values, len(asked)) for axis, values in labels.items()}


def _commonest(values: np.ndarray, times: int) -> Answers:
    (value, count), *_ = sorted(Counter(values.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))
    return np.full(times, value), np.full(times, count / len(values))


def tfidf(texts: Sequence[str], labels: Values, asked: Sequence[str]) -> dict[str, Answers]:
    """TF-IDF of words and pairs, and logistic regression, one value against the rest."""
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=30_000)
    rows = vectoriser.fit_transform(texts)
    asked_rows = vectoriser.transform(asked)
    answers = {}
    for axis, values in labels.items():
        if len(set(values)) == 1:
            answers[axis] = _commonest(values, len(asked))
            continue
        model = OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear")).fit(rows, values)
        probability = model.predict_proba(asked_rows)
        answers[axis] = model.classes_[probability.argmax(axis=1)], probability.max(axis=1)
    return answers


def fast_text(texts: Sequence[str], labels: Values, asked: Sequence[str]) -> dict[str, Answers]:
    """fastText, word pairs, 25 epochs, one thread, one model an axis."""
    return {
        axis: ask_fast_text(train_fast_text(texts, [f"__label__{value}" for value in values], "softmax"), asked)
        for axis, values in labels.items()
    }


def fast_text_together(texts: Sequence[str], labels: Values, asked: Sequence[str]) -> dict[str, Answers]:
    """The same with one model for all axes: their values are its labels, each against the rest."""
    rows = zip(*labels.values(), strict=True)
    model = train_fast_text(texts, [" ".join(map("__label__{}={}".format, labels, row)) for row in rows], "ova")
    found, sure = model.predict([" ".join(text.split()) for text in asked], k=-1)
    answers = {}
    for axis in labels:
        mark = f"__label__{axis}="
        first = [next(at for at, label in enumerate(one) if label.startswith(mark)) for one in found]
        given = [one[at].removeprefix(mark) for one, at in zip(found, first, strict=True)]
        answers[axis] = np.array(given), np.array([float(one[at]) for one, at in zip(sure, first, strict=True)])
    return answers


def train_fast_text(texts: Sequence[str], labels: Sequence[str], loss: str) -> Any:
    """A fastText model; `labels` are those of each text as its training file has them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        lines = [f"{label} {' '.join(text.split())}" for label, text in zip(labels, texts, strict=True)]
        path.write_text("\n".join(lines), "utf-8")
        options = {"epoch": 25, "lr": 0.5, "wordNgrams": 2, "dim": 50, "bucket": 200_000, "thread": 1, "verbose": 0}
        return fasttext.train_supervised(str(path), loss=loss, **options)


def ask_fast_text(model: Any, asked: Sequence[str]) -> Answers:
    """fastText's own predict loop."""
    labels, probabilities = model.predict([" ".join(text.split()) for text in asked])
    answers = np.array([label[0].removeprefix("__label__") for label in labels])
    return answers, np.array([float(probability[0]) for probability in probabilities])


def score(answers: Answers, wanted: np.ndarray) -> dict[str, float]:
    """kappa, macro_f1 and ece of named values."""
    names = np.unique(np.concatenate([answers[0], wanted]))
    return score_answers(np.searchsorted(names, answers[0]), np.searchsorted(names, wanted), answers[1])


def column(table: pl.DataFrame, name: str) -> np.ndarray:
    """An axis as strings; of the operations the first."""
    values = table[name].list.first() if name == "solving_operation" else table[name].cast(pl.String)
    return values.to_numpy().astype(str)


def values_of(table: pl.DataFrame, kind: str) -> Values:
    """The values of all axes, and of the grades of documents."""
    return {axis: column(table, axis) for axis in (*AXES, *(GRADES if kind == "document" else ()))}


def held_out(
    method: Method, texts: list[str], labels: Values, folds: np.ndarray, beside: tuple[list[str], Values]
) -> dict[str, Answers]:
    """Answers on every text by a model that never saw its fold, and always the texts beside."""
    answers = {axis: (np.empty(len(texts), dtype=object), np.zeros(len(texts))) for axis in labels}
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        lesson = [texts[i] for i in train] + beside[0]
        known = {axis: np.concatenate([values[train], beside[1][axis]]) for axis, values in labels.items()}
        for axis, (given, sure) in method(lesson, known, [texts[i] for i in test]).items():
            answers[axis][0][test], answers[axis][1][test] = given, sure
    return {axis: (given.astype(str), sure) for axis, (given, sure) in answers.items()}


def quality(
    train: pl.DataFrame,
    test: pl.DataFrame,
    beside: pl.DataFrame,
    kind: str,
    methods: dict[str, Method],
    *,
    unseen: bool,
) -> None:
    """Print one line per axis and method."""
    train, test, beside = (table.filter(pl.col("kind") == kind).sort("record_id") for table in (train, test, beside))
    texts, asked, more = ([window(text) for text in table["text"]] for table in (train, test, beside))
    labels, wanted, more_labels = (values_of(table, kind) for table in (train, test, beside))
    folds = source_folds(train["source"].to_numpy().astype(str))
    lesson = {axis: np.concatenate([labels[axis], more_labels[axis]]) for axis in labels}
    found = {}
    for name, method in methods.items():
        seen = method(texts + more, lesson, asked)
        far = held_out(method, texts, labels, folds, (more, more_labels)) if unseen else None
        found[name] = {
            axis: (score(seen[axis], wanted[axis]), score(far[axis], labels[axis]) if far else None) for axis in labels
        }
    together = {}
    for spec in ("embedded", "embedded:accurate"):
        scores = orjson.loads((embedded_path(spec) / "card.json").read_bytes())["scores"]
        both = scores["test"][kind], scores[kind]["unseen_sources"]
        found[spec] = {axis: tuple(column[axis] for column in both) for axis in labels}
        together[spec] = [column[ALL_ANSWERS]["ece"] for column in both]
    for axis in labels:
        for name in found:
            show(kind, axis, name, *found[name][axis])
    for spec, errors in together.items():
        print(f"{kind:9}{'all answers':22}{spec:19}{'  |'.join(f'{error:18.3f}' for error in errors)}", flush=True)


def show(kind: str, axis: str, name: str, *scores: dict[str, float] | None) -> None:
    """Print kappa, macro-F1 and ECE, seen then unseen."""
    figures = [f"{s['kappa']:6.3f} {s['macro_f1']:5.3f} {s['ece']:5.3f}" if s else " " * 18 for s in scores]
    print(f"{kind:9}{axis:22}{name:19}{'  |'.join(figures)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--side", choices=["item", "document"], action="append")
    parser.add_argument("--skip-unseen", action="store_true", help="leave out the ten folds of the baselines")
    parser.add_argument("--labels-only", action="store_true", help="the baselines learn from no written examples")
    arguments = parser.parse_args()
    gold = [read_gold(arguments.gold / f"{name}.jsonl") for name in ("silver", "dev", "test")]
    texts = read_texts(arguments.data, {name for table in gold for name in table["record_id"]})
    train = pl.concat(gold[:2], how="diagonal_relaxed").join(texts, on="record_id")
    test = gold[2].join(texts, on="record_id")
    beside = written_examples().clear() if arguments.labels_only else written_examples()
    methods: dict[str, Method] = {"majority": majority, "tfidf": tfidf}
    if fasttext is None:
        print("fastText is left out: install fasttext-community or fasttext-numpy2-wheel to compare with it")
    else:
        methods |= {"fasttext": fast_text, "fasttext, one": fast_text_together}
    print(f"{'side':9}{'axis':22}{'judge':19}{'seen: kappa F1 ECE':18}  |{'unseen: kappa F1 ECE':18}")
    for kind in arguments.side or ["item", "document"]:
        quality(train, test, beside, kind, methods, unseen=not arguments.skip_unseen)


if __name__ == "__main__":
    main()

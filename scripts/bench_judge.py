"""The quality and speed of the embedded judge beside simpler ones trained on the same labels, as one table.

    python scripts/bench_judge.py --gold ../shared/gold --data ../shared/data [--side item] [--skip-unseen]

seen: trained on silver + dev, scored on test.jsonl (the same sources). unseen: whole benchmarks or corpus sources of
silver + dev held out, ten folds. Baselines: the commonest value; TF-IDF with logistic regression (scikit-learn);
fastText (fasttext-community or fasttext-numpy2-wheel; left out with a remark where neither is installed).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from train_embedded import read_gold, read_texts

from annotator.distillation.heads import score_answers, source_folds
from annotator.judges.features import window
from annotator.judges.student import Student, embedded_path
from annotator.taxonomy import AXES, GRADES

try:
    import fasttext
except ImportError:
    fasttext = None

Answers = tuple[np.ndarray, np.ndarray]  # values, and the probability of each
Method = Callable[[Sequence[str], np.ndarray, Sequence[str]], Answers]


def majority(_texts: Sequence[str], values: np.ndarray, asked: Sequence[str]) -> Answers:
    """The commonest training value, with its share as probability."""
    (value, count), *_ = sorted(Counter(values.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))
    return np.full(len(asked), value), np.full(len(asked), count / len(values))


def tfidf(texts: Sequence[str], values: np.ndarray, asked: Sequence[str]) -> Answers:
    """TF-IDF of words and pairs, and logistic regression, one value against the rest."""
    if len(set(values)) == 1:
        return majority(texts, values, asked)
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=30_000)
    model = OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear")).fit(
        vectoriser.fit_transform(texts), values
    )
    probability = model.predict_proba(vectoriser.transform(asked))
    return model.classes_[probability.argmax(axis=1)], probability.max(axis=1)


def fast_text(texts: Sequence[str], values: np.ndarray, asked: Sequence[str]) -> Answers:
    """fastText, word pairs, 25 epochs, one thread."""
    return ask_fast_text(train_fast_text(texts, values), asked)


def train_fast_text(texts: Sequence[str], values: np.ndarray) -> Any:
    """A fastText model of one axis."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        lines = [f"__label__{value} {' '.join(text.split())}" for value, text in zip(values, texts, strict=True)]
        path.write_text("\n".join(lines), "utf-8")
        options = {"epoch": 25, "lr": 0.5, "wordNgrams": 2, "dim": 50, "bucket": 200_000, "thread": 1, "verbose": 0}
        return fasttext.train_supervised(str(path), **options)


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


def held_out(method: Method, texts: list[str], values: np.ndarray, folds: np.ndarray) -> Answers:
    """Answers on every text by a model that never saw its fold."""
    answers, sure = np.empty(len(texts), dtype=values.dtype), np.zeros(len(texts))
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        answers[test], sure[test] = method([texts[i] for i in train], values[train], [texts[i] for i in test])
    return answers, sure


def quality(train: pl.DataFrame, test: pl.DataFrame, kind: str, methods: dict[str, Method], *, unseen: bool) -> None:
    """Print one line per axis and method."""
    card = Student.load(embedded_path()).card["scores"]
    train, test = (table.filter(pl.col("kind") == kind).sort("record_id") for table in (train, test))
    texts, asked = ([window(text) for text in table["text"]] for table in (train, test))
    folds = source_folds(train["source"].to_numpy().astype(str))
    for axis in (*AXES, *(GRADES if kind == "document" else ())):
        values, wanted = column(train, axis), column(test, axis)
        for name, method in methods.items():
            seen = score(method(texts, values, asked), wanted)
            show(kind, axis, name, seen, score(held_out(method, texts, values, folds), values) if unseen else None)
        show(kind, axis, "embedded", card["test"][kind][axis], card[kind]["unseen_sources"][axis])


def show(kind: str, axis: str, name: str, *scores: dict[str, float] | None) -> None:
    """Print kappa, macro-F1 and ECE, seen then unseen."""
    figures = [f"{s['kappa']:6.3f} {s['macro_f1']:5.3f} {s['ece']:5.3f}" if s else " " * 18 for s in scores]
    print(f"{kind:9}{axis:22}{name:12}{'  |'.join(figures)}", flush=True)


def speed(data: Path, train: pl.DataFrame) -> None:
    """Print documents a CPU second, parquet in to columns out, and those of fastText's own predict loop."""
    shard = data / "corpus" / "part-000.parquet"
    student = Student.load(embedded_path())
    start = time.process_time()
    texts = pl.read_parquet(shard, columns=["text"])["text"].to_list()
    student.predict(texts, "document")
    mine = len(texts) / (time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    mean = sum(map(len, texts)) / len(texts)
    print(f"speed: {mine:,.0f} documents a CPU second, {mean:,.0f} characters each, all axes, peak {peak:,.0f} MiB")
    if fasttext is None:
        return
    rows = train.filter(pl.col("kind") == "document")
    model = train_fast_text(rows["text"].to_list(), column(rows, "task_type"))
    start = time.process_time()
    ask_fast_text(model, pl.read_parquet(shard, columns=["text"])["text"].to_list())
    theirs = len(texts) / (time.process_time() - start)
    print(
        f"speed: fastText {theirs:,.0f} documents a CPU second for one axis of whole texts; six axes {theirs / 6:,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--side", choices=["item", "document"], action="append")
    parser.add_argument("--skip-unseen", action="store_true", help="leave out the ten folds of the baselines")
    arguments = parser.parse_args()
    gold = [read_gold(arguments.gold / f"{name}.jsonl") for name in ("silver", "dev", "test")]
    texts = read_texts(arguments.data, {name for table in gold for name in table["record_id"]})
    train = pl.concat(gold[:2], how="diagonal_relaxed").join(texts, on="record_id")
    test = gold[2].join(texts, on="record_id")
    methods: dict[str, Method] = {"majority": majority, "tfidf": tfidf}
    if fasttext is None:
        print("fastText is left out: install fasttext-community or fasttext-numpy2-wheel to compare with it")
    else:
        methods["fasttext"] = fast_text
    print(f"{'side':9}{'axis':22}{'judge':12}{'seen: kappa F1 ECE':18}  |{'unseen: kappa F1 ECE':18}")
    for kind in arguments.side or ["item", "document"]:
        quality(train, test, kind, methods, unseen=not arguments.skip_unseen)
    speed(arguments.data, train)


if __name__ == "__main__":
    main()

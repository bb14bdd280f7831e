"""Documents a CPU second that the embedded student labels, parquet in to parquet out, beside fastText and TF-IDF.

    python scripts/bench_student.py --data ../shared/data --gold ../shared/gold [--documents 1000 10000 100000]

Documents are those of the corpus cut to 2,000 characters, repeated under new ids as often as needed. Every contender
runs in a process of its own with one thread, reads the same parquet file, answers all six axes and writes a parquet
file; the time is the CPU time of the whole process, imports and all. fastText is one model with the values of all axes
as labels, asked once for all of them (one-versus-all loss); TF-IDF is one vectoriser with a linear head for each axis.
Both learn from silver + dev. fastText is left out where it is not installed (fasttext-community).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

CHARACTERS = 2000
CONTENDERS = ("embedded", "fasttext", "tfidf")
ACCURATE_UP_TO = 1000  # it is a hundred times slower
_BATCH = 2048


def make_documents(data: Path, count: int, out: Path) -> None:
    """`count` documents of at most 2,000 characters: doc_id, text."""
    import polars as pl

    texts = pl.concat([pl.read_parquet(path, columns=["text"]) for path in sorted((data / "corpus").glob("*.parquet"))])
    texts = texts.select(pl.col("text").str.slice(0, CHARACTERS)).filter(
        pl.col("text").str.len_chars() > CHARACTERS // 2
    )
    repeated = pl.concat([texts] * -(-count // texts.height)).head(count)
    repeated.with_row_index("doc_id").cast({"doc_id": pl.String}).write_parquet(out, row_group_size=20_000)


def by_student(spec: str, source: Path, out: Path) -> None:
    """The real command, as a user calls it."""
    from annotator.cli import main

    sys.argv = ["annotator", "label", str(source), "-o", str(out), "--kind", "document", "--judge", spec, "--quiet"]
    main()


def by_fasttext(source: Path, out: Path, lessons: list[dict[str, str]], texts: list[str]) -> float:
    """fastText's own predict loop; returns the CPU seconds of training, which do not count."""
    import fasttext
    import polars as pl

    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        lines = (
            " ".join(f"__label__{axis}={value}" for axis, value in row.items()) + " " + " ".join(text.split())
            for row, text in zip(lessons, texts, strict=True)
        )
        path.write_text("\n".join(lines), "utf-8")
        model = fasttext.train_supervised(
            str(path), epoch=25, lr=0.5, wordNgrams=2, dim=50, bucket=200_000, loss="ova", thread=1, verbose=0
        )
    training = time.process_time() - began
    found = []
    for batch in pl.read_parquet(source).iter_slices(_BATCH):
        labels, _ = model.predict([" ".join(text.split()) for text in batch["text"]], k=-1)
        best = [{label[9:].split("=")[0]: label for label in reversed(one)} for one in labels]
        found.append(batch.select("doc_id").hstack(pl.DataFrame(best)))
    pl.concat(found, how="diagonal").write_parquet(out)
    return training


def by_tfidf(source: Path, out: Path, lessons: list[dict[str, str]], texts: list[str]) -> float:
    """scikit-learn; returns the CPU seconds of training, which do not count."""
    import polars as pl
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    began = time.process_time()
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=30_000)
    rows = vectoriser.fit_transform(texts)
    heads = {
        axis: SGDClassifier(loss="log_loss", random_state=0).fit(rows, [row[axis] for row in lessons])
        for axis in lessons[0]
    }
    training = time.process_time() - began
    found = []
    for batch in pl.read_parquet(source).iter_slices(_BATCH):
        rows = vectoriser.transform(batch["text"])
        found.append(batch.select("doc_id").with_columns(pl.Series(axis, heads[axis].predict(rows)) for axis in heads))
    pl.concat(found).write_parquet(out)
    return training


def run_one(name: str, source: Path, out: Path, lessons: Path) -> None:
    """Run a contender in this process and print its CPU seconds and peak memory; the student exits by itself."""
    if name.startswith("embedded"):
        by_student(name, source, out)
        return
    learnt = json.loads(lessons.read_text("utf-8"))
    training = {"fasttext": by_fasttext, "tfidf": by_tfidf}[name](source, out, learnt["labels"], learnt["texts"])
    print(json.dumps({"training": training}))


def measured(name: str, source: Path, folder: Path) -> dict[str, float] | None:
    """CPU seconds (training left out) and peak MB of one contender, or None where it did not run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    limited = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [
        sys.executable,
        __file__,
        "--run",
        name,
        str(source),
        str(folder / "out.parquet"),
        str(folder / "lessons"),
    ]
    began = time.monotonic()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | limited, cwd=folder
    )
    said, complained = child.communicate()
    wall = time.monotonic() - began
    if child.returncode:
        print(f"{name}: {(complained.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    training = json.loads(said.splitlines()[-1])["training"] if not name.startswith("embedded") else 0.0
    return {"cpu_s": cpu - training, "wall_s": wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--peers-up-to", type=int, default=10_000, help="run the others on no more documents than this")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, *paths = arguments.run
        run_one(name, *map(Path, paths))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_lessons(arguments, folder / "lessons")
        print(f"{'documents':>10} {'contender':17} {'documents a CPU second':>23} {'ours against it':>16}")
        for count in arguments.documents:
            source = folder / "documents.parquet"
            make_documents(arguments.data, count, source)
            own = None
            names = CONTENDERS if count <= arguments.peers_up_to else CONTENDERS[:1]
            for name in (*names, "embedded:accurate") if count <= ACCURATE_UP_TO else names:
                found = measured(name, source, folder)
                if found is None:
                    continue
                rate = count / found["cpu_s"]
                own = own or rate
                print(f"{count:10,} {name:17} {rate:23,.0f} {own / rate:15.2f}x", flush=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"largest peak memory of any process: {peak:,.0f} MiB")


def _write_lessons(arguments: argparse.Namespace, path: Path) -> None:
    """Labels and texts of silver + dev documents, as JSON for the other contenders."""
    import polars as pl

    sys.path.insert(0, str(ROOT / "scripts"))
    from train_embedded import read_gold, read_texts

    from annotator.taxonomy import AXES, GRADES

    gold = pl.concat(
        [read_gold(arguments.gold / f"{name}.jsonl") for name in ("silver", "dev")], how="diagonal_relaxed"
    )
    rows = gold.filter(pl.col("kind") == "document")
    rows = rows.join(read_texts(arguments.data, set(rows["record_id"])), on="record_id").sort("record_id")
    first = rows.with_columns(pl.col("solving_operation").list.first(), pl.col("quality").cast(pl.String))
    labels = first.select(*AXES, *GRADES).to_dicts()
    path.write_text(json.dumps({"labels": labels, "texts": rows["text"].to_list()}), "utf-8")


if __name__ == "__main__":
    main()

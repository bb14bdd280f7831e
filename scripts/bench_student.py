"""Documents a CPU second that the embedded student labels, parquet in to parquet out, beside fastText and TF-IDF.

    python scripts/bench_student.py --data ../shared/data --gold ../shared/gold [--documents 1000 10000 100000]

Documents are those of the corpus cut to 2,000 characters, repeated under new ids as often as needed, in four shards.
Every contender runs in a process of its own with one thread, reads the same shards, answers all six axes and writes
parquet; its time is the CPU time of the whole process, imports and start-up and all, training left out. fastText comes
twice: one model with the values of all axes as labels, asked once for all of them (one-versus-all loss), and one model
an axis, which is what its own tutorial does. TF-IDF is one vectoriser with a linear head for each axis. They learn from
silver + dev. fastText is left out where it is not installed (fasttext-community). At the largest size the student also
runs with one process a core, by the clock. Compiled modules are kept for all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

CHARACTERS = 2000
CONTENDERS = ("embedded", "fasttext", "fasttext-6", "tfidf")
SHARDS = 4
ACCURATE_UP_TO = 1000  # it is a hundred times slower
_BATCH = 2048


def make_documents(data: Path, count: int, folder: Path) -> None:
    """`count` documents of at most 2,000 characters in SHARDS files: doc_id, text."""
    import polars as pl

    texts = pl.concat([pl.read_parquet(path, columns=["text"]) for path in sorted((data / "corpus").glob("*.parquet"))])
    texts = texts.select(pl.col("text").str.slice(0, CHARACTERS)).filter(
        pl.col("text").str.len_chars() > CHARACTERS // 2
    )
    repeated = pl.concat([texts] * -(-count // texts.height)).head(count)
    named = repeated.with_row_index("doc_id").cast({"doc_id": pl.String})
    folder.mkdir(exist_ok=True)
    for shard in range(SHARDS):
        part = named.slice(shard * count // SHARDS, (shard + 1) * count // SHARDS - shard * count // SHARDS)
        part.write_parquet(folder / f"part-{shard}.parquet", row_group_size=20_000)


def by_student(spec: str, source: Path, out: Path) -> None:
    """The real command, as a user calls it; "embedded x2" is two processes."""
    from annotator.cli import main

    judge, _, processes = spec.partition(" x")
    sys.argv = ["annotator", "label", str(source), "-o", str(out), "--kind", "document", "--judge", judge, "--quiet"]
    sys.argv += ["--processes", processes] if processes else []
    main()


def by_fasttext(source: Path, out: Path, lessons: list[dict[str, str]], texts: list[str]) -> float:
    """fastText's own predict loop, one model for all axes; returns the CPU seconds of training, which do not count."""
    import polars as pl

    began = time.process_time()
    lines = [" ".join(f"__label__{axis}={value}" for axis, value in row.items()) for row in lessons]
    model = _trained(lines, texts, "ova")
    training = time.process_time() - began
    found = []
    for batch in pl.read_parquet(source).iter_slices(_BATCH):
        labels, _ = model.predict([" ".join(text.split()) for text in batch["text"]], k=-1)
        best = [{label[9:].split("=")[0]: label for label in reversed(one)} for one in labels]
        found.append(batch.select("doc_id").hstack(pl.DataFrame(best)))
    pl.concat(found, how="diagonal").write_parquet(out)
    return training


def by_fasttext_per_axis(source: Path, out: Path, lessons: list[dict[str, str]], texts: list[str]) -> float:
    """The same with one model an axis."""
    import polars as pl

    began = time.process_time()
    models = {axis: _trained([f"__label__{row[axis]}" for row in lessons], texts, "softmax") for axis in lessons[0]}
    training = time.process_time() - began
    found = []
    for batch in pl.read_parquet(source).iter_slices(_BATCH):
        lines = [" ".join(text.split()) for text in batch["text"]]
        answers = {axis: [one[0] for one in model.predict(lines)[0]] for axis, model in models.items()}
        found.append(batch.select("doc_id").hstack(pl.DataFrame(answers)))
    pl.concat(found).write_parquet(out)
    return training


def _trained(labels: list[str], texts: list[str], loss: str) -> Any:
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        lines = (f"{label} {' '.join(text.split())}" for label, text in zip(labels, texts, strict=True))
        path.write_text("\n".join(lines), "utf-8")
        options = {"epoch": 25, "lr": 0.5, "wordNgrams": 2, "dim": 50, "bucket": 200_000, "thread": 1, "verbose": 0}
        return fasttext.train_supervised(str(path), loss=loss, **options)


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
    contender = {"fasttext": by_fasttext, "fasttext-6": by_fasttext_per_axis, "tfidf": by_tfidf}[name]
    training = contender(source, out, learnt["labels"], learnt["texts"])
    print(json.dumps({"training": training}))


def measured(name: str, source: Path, folder: Path) -> dict[str, float] | None:
    """CPU seconds (training left out), wall seconds and peak MiB of one contender, or None where it did not run."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    limited = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    out = folder / "out" if name.startswith("embedded") else folder / "out.parquet"
    command = [sys.executable, __file__, "--run", name, str(source), str(out), str(folder / "lessons")]
    began = time.monotonic()
    with (folder / "said").open("w+") as said, (folder / "complained").open("w+") as complained:
        environment = kept | limited | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        child = subprocess.Popen(command, stdout=said, stderr=complained, env=environment, cwd=folder)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        lines = [(file.seek(0), file.read().strip().splitlines())[1] for file in (said, complained)]
    shutil.rmtree(folder / "out", ignore_errors=True)
    if child.returncode:
        print(f"{name}: {(lines[1] or ['failed'])[-1]}", file=sys.stderr)
        return None
    training = json.loads(lines[0][-1])["training"] if not name.startswith("embedded") else 0.0
    return {"cpu_s": used.ru_utime + used.ru_stime - training, "wall_s": wall, "peak_mib": used.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
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
        source = folder / "documents"
        make_documents(arguments.data, 100, source)
        for name in (*CONTENDERS, "embedded:accurate"):
            measured(name, source, folder)  # compiles the modules
        titles = f"{'CPU s':>8} {'a CPU second':>13} {'peak MiB':>9} {'ours against it':>16}"
        print(f"{'documents':>10} {'contender':17} {titles}")
        start_up = None
        for count in arguments.documents:
            make_documents(arguments.data, count, source)
            own = _row(count, "embedded", measured("embedded", source, folder), None)
            start_up = start_up or (count, own)
            for name in CONTENDERS[1:] if count <= arguments.peers_up_to else ():
                _row(count, name, measured(name, source, folder), own)
            if count <= ACCURATE_UP_TO:
                _row(count, "embedded:accurate", measured("embedded:accurate", source, folder), own)
        if count > start_up[0]:
            each = (own - start_up[1]) / (count - start_up[0])
            print(f"beyond the first {start_up[0]:,} documents: {1 / each:,.0f} a CPU second, {each * 1e6:.0f} us each")
        for processes in (1, 2):
            found = measured(f"embedded x{processes}", source, folder)
            print(f"{processes} processes, {count:,} documents: {count / found['wall_s']:,.0f} a second by the clock")


def _row(count: int, name: str, found: dict[str, float] | None, own: float | None) -> float | None:
    """Print a line; returns the CPU seconds."""
    if found is None:
        return None
    used = found["cpu_s"]
    ratio = f"{used / own:15.2f}x" if own else ""
    print(f"{count:10,} {name:17} {used:8.2f} {count / used:13,.0f} {found['peak_mib']:9,.0f} {ratio}", flush=True)
    return used


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

"""Train the students that ship with the package, and score them on the test labels.

    python scripts/train_embedded.py --gold ../shared/gold --data ../shared/data [--accurate]

Trains on silver.jsonl + dev.jsonl; test.jsonl is read only after training, to report. One core, a few minutes.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from annotator.distill import ALL_ANSWERS, distill, measure_speed, written_examples
from annotator.distillation.heads import score_answers, score_confidence
from annotator.judges.student import Student, embedded_path
from annotator.readers.records import item_text
from annotator.tables import write_json
from annotator.taxonomy import AXES, GRADES, load_taxonomy

DATA = (
    "2,079 records (725 items of ten public benchmarks, 1,354 documents of 38 corpus sources), labelled by a frontier "
    "language model reading each record against the codebook (gold files silver and dev); no person checked them. "
    "Beside them short texts that a language model wrote and labelled for this student, so that each value of the "
    "codebook is seen in several forms (sizes: written_examples). Their writer knows the kinds of task that public "
    "benchmarks hold, so scores on unseen sources stand for sources whose kinds of task the codebook foresees."
)


def read_gold(path: Path) -> pl.DataFrame:
    """One label table from gold files: record_id, kind, the axes, exercise, quality."""
    return pl.read_ndjson(path, infer_schema_length=None)


def read_texts(data: Path, wanted: set[str]) -> pl.DataFrame:
    """record_id, text, source (benchmark or corpus source), group (for items the task) of the wanted records."""
    rows = []
    for path in sorted((data / "benchmarks").glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            item = orjson.loads(line)
            if item["id"] in wanted:
                text = item_text(item["question"], item.get("choices"), item.get("target"))
                rows.append((item["id"], text, item["benchmark"], f"{item['benchmark']}/{item['task']}"))
    for path in sorted((data / "corpus").glob("*.parquet")):
        shard = pl.read_parquet(path, columns=["id", "text", "source"]).filter(pl.col("id").is_in(sorted(wanted)))
        rows += [(name, text, source, source) for name, text, source in shard.iter_rows()]
    return pl.DataFrame(rows, schema=["record_id", "text", "source", "group"], orient="row")


def score_on(student: Student, labels: pl.DataFrame, texts: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """kappa, macro_f1 and ece per side and axis on labels that the student was not trained on."""
    scores = {}
    for kind in ("item", "document"):
        sure, right = [], []
        rows = labels.filter(pl.col("kind") == kind).join(texts, on="record_id").sort("record_id")
        given = student.predict(rows["text"].to_list(), kind)
        scores[kind] = {"records": len(rows)}
        for name in (*AXES, *(GRADES if kind == "document" else ())):
            answers, wanted = (
                (table[name].list.first() if name == "solving_operation" else table[name].cast(pl.String)).to_numpy()
                for table in (given, rows)
            )
            names = np.unique(np.concatenate([answers, wanted]).astype(str))
            codes = (np.searchsorted(names, column.astype(str)) for column in (answers, wanted))
            sure.append(given[f"confidence_{name}"].to_numpy())
            right.append(answers == wanted)
            scores[kind][name] = score_answers(*codes, sure[-1])
        scores[kind][ALL_ANSWERS] = score_confidence(np.concatenate(sure), np.concatenate(right))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--accurate", action="store_true", help="train embedded:accurate; needs the extra of that name")
    parser.add_argument("--out", type=Path, help="default: the package's own folder")
    arguments = parser.parse_args()
    out = arguments.out or embedded_path("embedded:accurate" if arguments.accurate else "embedded")
    train = pl.concat(
        [read_gold(arguments.gold / f"{name}.jsonl") for name in ("silver", "dev")], how="diagonal_relaxed"
    )
    test = read_gold(arguments.gold / "test.jsonl")
    texts = read_texts(arguments.data, {*train["record_id"], *test["record_id"]})
    distill(
        train,
        texts,
        taxonomy=load_taxonomy(),
        out=out,
        data=DATA,
        examples=written_examples(),
        accurate=arguments.accurate,
    )
    card = measure_speed(out, train, texts)
    card["scores"]["test"] = score_on(Student.load(out), test, texts)
    write_json(out / "card.json", card)
    print(orjson.dumps(card["scores"], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()

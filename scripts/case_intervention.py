"""Make the slice tables of docs/intervention.md: what the targeted examples of a real trial were aimed at.

    annotator label ../shared/data/benchmarks/math.jsonl.gz -o case/math.parquet --kind item
    python scripts/case_intervention.py ../shared/data --labels case/math.parquet -o case

EvalTree (arXiv 2503.08893) fine-tuned one model on 128 examples an arm: written for its weakest capabilities, sampled
directly from the benchmark's own kind, or generic. The trial does not name its targets in our vocabulary, so they are
read from its training examples, without a look at any score: the operations that the targeted examples ask for more
often than the directly sampled ones (lower end of a 95 % interval above 0), if ten items or more need them.

Writes OUT/aimed_at.parquet (those operations: the targets) and OUT/operations.parquet (every operation of 30 items or
more, for a table of which arm helped where). Both are slice tables.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl

from annotator.tables import LABELS, SLICES, read_table, write_table

EXAMPLES = "interventions/math__Llama-3.1-8B-Instruct+{arm}-s*.train.json"
RUN = "runs/math1k__Llama-3.1-8B-Instruct.jsonl.gz"
FEWEST_TARGET_ITEMS, FEWEST_ITEMS = 10, 30


def operations_of(data: Path, arm: str) -> tuple[Counter[str], int]:
    """How many training examples of an arm, all seeds together, ask for each operation; and how many there are."""
    examples = [
        {"id": f"{path.stem}/{number}", "prompt": example["input"]}
        for path in sorted(data.glob(EXAMPLES.format(arm=arm)))
        for number, example in enumerate(json.loads(path.read_text("utf-8")))
    ]
    with tempfile.TemporaryDirectory() as folder:
        items, labels = Path(folder, "examples.jsonl"), Path(folder, "labels.parquet")
        items.write_text("".join(json.dumps(example) + "\n" for example in examples), "utf-8")
        arguments = ["label", str(items), "-o", str(labels), "--kind", "item", "-q"]
        subprocess.run([sys.executable, "-m", "annotator", *arguments], check=True)
        found = read_table(labels, LABELS, made_by="annotator label")
    return Counter(found["solving_operation"].explode().drop_nulls().to_list()), len(examples)


def surely_more(here: int, of_here: int, there: int, of_there: int) -> bool:
    """Whether a share is above another, at the lower end of a 95 % interval of their difference."""
    one, two = here / of_here, there / of_there
    return one - two > 1.96 * math.sqrt(one * (1 - one) / of_here + two * (1 - two) / of_there)


def slices_of(operations: list[str], labels: pl.DataFrame) -> pl.DataFrame:
    """A slice table: one row an operation, with the labelled items that need it."""
    rows = []
    for operation in operations:
        items = labels.filter(pl.col("solving_operation").list.contains(operation))["record_id"].sort().to_list()
        row = dict.fromkeys(SLICES) | {"slice_id": f"op={operation}", "solving_operation": [operation]}
        rows.append(row | {"items": len(items), "item_ids": items})
    return pl.DataFrame(rows, schema=SLICES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the development data: runs/ and interventions/")
    parser.add_argument("--labels", type=Path, required=True, help="labels of the MATH items")
    parser.add_argument("-o", "--out", type=Path, default=Path("case"))
    options = parser.parse_args()
    if not (options.data / RUN).exists():
        print(f"skipped: {options.data / RUN} is not here")
        return
    with gzip.open(options.data / RUN, "rt", encoding="utf-8") as lines:
        answered = sorted({json.loads(line)["item_id"] for line in lines})
    labels = read_table(options.labels, LABELS, made_by="annotator label")
    labels = labels.filter(pl.col("record_id").is_in(answered))
    needed = Counter(labels["solving_operation"].explode().drop_nulls().to_list())
    (targeted, of_targeted), (sampled, of_sampled) = (
        operations_of(options.data, arm) for arm in ("EvalTree", "Directly-Sampled")
    )
    aimed_at = [
        operation
        for operation in sorted(needed)
        if needed[operation] >= FEWEST_TARGET_ITEMS
        and surely_more(targeted[operation], of_targeted, sampled[operation], of_sampled)
    ]
    common = [operation for operation in sorted(needed) if needed[operation] >= FEWEST_ITEMS]
    for name, operations in (("aimed_at", aimed_at), ("operations", common)):
        write_table(slices_of(operations, labels), options.out / f"{name}.parquet")
        print(f"{name}: {', '.join(operations)} -> {options.out / name}.parquet")


if __name__ == "__main__":
    main()

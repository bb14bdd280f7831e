"""Match and rank ten million labelled documents on this machine, beside the same query in pandas and in DuckDB.

    python scripts/bench_rank.py --labels labels.parquet --documents 10_000_000 --slices 200

The documents are drawn with replacement from a real table of document labels, so their labels are distributed like
real ones; ids, token counts and sources are made. Texts are not read. The other two programs get the matches that ours
made, and choose the best documents by the same gains under the same budget, without quotas, passes, caps or reasons:
less work than ours. Each program runs in a process of its own; peak memory is that process's maximum resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from annotator.mapping import load_rules
from annotator.match import match
from annotator.rank import rank
from annotator.tables import LABELS, SLICES, read_table
from annotator.taxonomy import load_taxonomy

PROGRAMS = ("annotator", "pandas", "duckdb")


def make_documents(seeds: pl.DataFrame, count: int, folder: Path) -> None:
    """labels.parquet and documents.parquet with `count` rows, drawn from real labels."""
    drawn = np.random.default_rng(1).integers(0, seeds.height, count)
    generator = np.random.default_rng(2)
    ids = pl.select(pl.format("doc{}", pl.int_range(count))).to_series()
    seeds[drawn].with_columns(ids.alias("record_id")).write_parquet(folder / "labels.parquet")
    tokens = np.maximum(generator.lognormal(6.5, 1.1, count), 20).astype(np.int64)
    sources = np.array([f"source{k}" for k in range(40)])[generator.integers(0, 40, count)]
    pl.DataFrame({"doc_id": ids, "tokens": tokens, "source": sources}).write_parquet(folder / "documents.parquet")


def make_slices(count: int) -> pl.DataFrame:
    """Slices over operations, backgrounds and tasks, with recoverable points that fall off like 1/rank."""
    taxonomy = load_taxonomy()
    generator = np.random.default_rng(3)
    rows = []
    for k in range(count):
        operation = str(generator.choice(taxonomy.values("solving_operation", "item")[:-1]))
        background = str(generator.choice(taxonomy.values("background_condition", "item")[:-1]))
        task = str(generator.choice(taxonomy.values("task_type", "item")[:-1]))
        row = dict.fromkeys(SLICES) | {
            "slice_id": f"slice{k:03d}",
            "recoverable_points": 10.0 / (k + 1),
            "item_ids": [],
        }
        row |= {"solving_operation": [operation]}
        row |= {"background_condition": background if k % 3 else None, "task_type": task if k % 4 == 0 else None}
        rows.append(row)
    return pl.DataFrame(rows, schema=SLICES)


def run_annotator(folder: Path, budget_tokens: int) -> dict[str, float]:
    """Match and rank, as the commands do, without texts."""
    taxonomy = load_taxonomy()
    rules = load_rules(taxonomy=taxonomy)
    labels = pl.scan_parquet(folder / "labels.parquet")
    documents = pl.read_parquet(folder / "documents.parquet")
    slices = pl.read_parquet(folder / "slices.parquet")
    began = time.perf_counter()
    found = match(slices, labels, rules=rules, taxonomy=taxonomy, documents=documents)
    matched = time.perf_counter()
    options = {"rules": rules, "budget_tokens": budget_tokens, "near_duplicates": False}
    ranking = rank(found.table, labels, documents, None, **options)
    ended = time.perf_counter()
    found.table.write_parquet(folder / "matches.parquet")
    return {"match_s": matched - began, "rank_s": ended - matched, "chosen": ranking.chosen.height}


def run_pandas(folder: Path, budget_tokens: int) -> dict[str, float]:
    """The gain of every document and the best within the budget, as one would write it in pandas."""
    import pandas as pd

    labels = pd.read_parquet(folder / "labels.parquet")
    documents = pd.read_parquet(folder / "documents.parquet")
    matches = pd.read_parquet(folder / "matches.parquet")
    exercise, quality = load_rules().exercise, load_rules().quality
    began = time.perf_counter()
    per_category = matches.groupby("category_id")["weight"].sum().rename("weight")
    exploded = labels[["record_id", "solving_operation", "background_condition", "task_type"]].explode(
        "solving_operation"
    )
    exploded["category_id"] = (
        "op="
        + exploded["solving_operation"]
        + "&bg="
        + exploded["background_condition"]
        + "&task="
        + exploded["task_type"]
    )
    gains = exploded.join(per_category, on="category_id", how="inner").groupby("record_id")["weight"].sum()
    table = labels[["record_id", "exercise", "quality", "confidence"]].join(gains, on="record_id", how="inner")
    table["score"] = table["weight"] * table["exercise"].map(exercise) * table["quality"].map(quality)
    table["score"] *= table["confidence"].fillna(1.0)
    table = table.merge(documents, left_on="record_id", right_on="doc_id").sort_values(
        ["score", "record_id"], ascending=[False, True]
    )
    chosen = table[table["tokens"].cumsum() <= budget_tokens]
    return {"rank_s": time.perf_counter() - began, "chosen": len(chosen)}


def run_duckdb(folder: Path, budget_tokens: int) -> dict[str, float]:
    """The same in SQL."""
    import duckdb

    rules = load_rules()

    def cases(column: str, values: dict[object, float]) -> str:
        whens = " ".join(f"when '{value}' then {factor}" for value, factor in values.items())
        return f"case cast({column} as varchar) {whens} else 0.6 end"

    connection = duckdb.connect()
    connection.execute("set threads = 2")
    query = f"""
        with per_category as (select category_id, sum(weight) as weight from '{folder}/matches.parquet' group by 1),
        exploded as (
            select record_id, exercise, quality, confidence, background_condition, task_type,
                   unnest(solving_operation) as operation from '{folder}/labels.parquet'),
        scored as (
            select record_id, sum(weight) * any_value({cases("exercise", dict(rules.exercise))})
                   * any_value({cases("quality", dict(rules.quality))}) * any_value(coalesce(confidence, 1)) as score
            from exploded join per_category
            on category_id = 'op=' || operation || '&bg=' || background_condition || '&task=' || task_type
            group by record_id)
        select count(*) from (
            select record_id, sum(tokens) over (order by score desc, record_id rows unbounded preceding) as read
            from scored join '{folder}/documents.parquet' on doc_id = record_id)
        where read <= {budget_tokens}
    """
    began = time.perf_counter()
    (chosen,) = connection.execute(query).fetchone()
    return {"rank_s": time.perf_counter() - began, "chosen": chosen}


def measured(program: str, folder: Path, budget_tokens: int) -> dict[str, float]:
    """Run one program in a process of its own."""
    command = [sys.executable, __file__, "--program", program, "--folder", str(folder), "--budget", str(budget_tokens)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"}
    return json.loads(done.stdout)


def main() -> None:
    """Parse the command line and print a line per program and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", help="a real table of document labels to draw from")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--programs", nargs="+", default=["annotator"], choices=PROGRAMS)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        run = {"annotator": run_annotator, "pandas": run_pandas, "duckdb": run_duckdb}[options.program]
        result = run(options.folder, options.budget)
        used = resource.getrusage(resource.RUSAGE_SELF)
        result |= {"peak_gb": used.ru_maxrss / 1e6, "cpu_s": used.ru_utime + used.ru_stime}
        print(json.dumps(result))
        return
    seeds = read_table(Path(options.labels), LABELS, made_by="annotator label")
    for count in options.documents:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_documents(seeds, count, folder)
            make_slices(options.slices).write_parquet(folder / "slices.parquet")
            for program in options.programs:
                result = measured(program, folder, budget_tokens=count * 100)
                print(f"{count:>12,} documents  {program:<10}", result, flush=True)


if __name__ == "__main__":
    main()

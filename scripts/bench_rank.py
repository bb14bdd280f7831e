"""Match and rank ten million labelled documents on this machine, beside the same query in pandas and in DuckDB.

    python scripts/bench_rank.py --labels labels.parquet --documents 10_000_000 --slices 200
    python scripts/bench_rank.py --labels labels.parquet --documents 1_000_000 --peers peers/bin/python

The documents are drawn with replacement from a real table of document labels, so their labels are distributed like
real ones; ids, token counts, sources and the last digits of the confidences are made. Texts are not read.

All programs do the same work and write the same tables: supply of every category, gain of every combination of labels,
slice queues with quotas, passes, the cap on sources, the budget, slices and rules of each chosen document, and every
other document with its reason, by doc_id. The peers are given what only our rules can say: the affinities (matches),
and category and guard of each combination of values. Both work on distinct combinations of labels too, as anyone
would. The part of their list that is also in ours is printed; long documents are put off by ours alone, which moves
a few at the edge. Each program runs in a process of its own; peak memory is that process's maximum resident set.
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
from typing import Any

import numpy as np

SOURCE_SHARE, QUOTA_POWER = 0.5, 0.5
THREADS = 2


def make_documents(labels: Path, count: int, folder: Path, shuffled: bool) -> None:
    """labels.parquet and documents.parquet with `count` rows, drawn from real labels."""
    import polars as pl

    from annotator.tables import LABELS, read_table

    seeds = read_table(labels, LABELS, made_by="annotator label").select(list(LABELS))
    generator = np.random.default_rng(1)
    drawn = seeds[generator.integers(0, seeds.height, count)]
    ids = pl.select(pl.format("doc{}", pl.int_range(count))).to_series().alias("record_id")
    jitter = pl.Series(generator.uniform(0.9, 1.0, count))
    drawn = drawn.with_columns(ids, pl.col("confidence").fill_null(1.0) * jitter)
    drawn.write_parquet(folder / "labels.parquet")
    tokens = np.maximum(generator.lognormal(6.5, 1.1, count), 20).astype(np.int64)
    sources = np.array([f"source{k}" for k in range(40)])[generator.integers(0, 40, count)]
    table = pl.DataFrame({"doc_id": ids, "tokens": tokens, "source": sources})
    table = table[generator.permutation(count)] if shuffled else table
    table.write_parquet(folder / "documents.parquet")


def make_slices(count: int, folder: Path) -> None:
    """Slices over operations, backgrounds and tasks, with recoverable points that fall off like 1/rank."""
    import polars as pl

    from annotator.tables import SLICES
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy()
    generator = np.random.default_rng(3)
    rows = []
    for k in range(count):
        operation = str(generator.choice(taxonomy.values("solving_operation", "item")[:-1]))
        background = str(generator.choice(taxonomy.values("background_condition", "item")[:-1]))
        task = str(generator.choice(taxonomy.values("task_type", "item")[:-1]))
        row = dict.fromkeys(SLICES) | {"slice_id": f"slice{k:03d}", "recoverable_points": 10.0 / (k + 1)}
        row |= {"solving_operation": [operation], "item_ids": []}
        row |= {"background_condition": background if k % 3 else None, "task_type": task if k % 4 == 0 else None}
        rows.append(row)
    pl.DataFrame(rows, schema=SLICES).write_parquet(folder / "slices.parquet")


def make_lookups(folder: Path) -> None:
    """For the peers: affinities.parquet (matches with shares), values.parquet (category and guard), grades.json."""
    import polars as pl

    from annotator.mapping import load_rules
    from annotator.match import match
    from annotator.matching.profiles import profiles
    from annotator.ranking.gain import Gains
    from annotator.taxonomy import load_taxonomy

    rules, taxonomy = load_rules(), load_taxonomy()
    labels = pl.scan_parquet(folder / "labels.parquet")
    matches = match(pl.read_parquet(folder / "slices.parquet"), labels, rules=rules, taxonomy=taxonomy).table
    axes = ["solving_operation", "background_condition", "task_type", "output_constraint"]
    values = labels.select(axes).explode("solving_operation").unique().collect().sort(axes)
    alone = values.with_columns(
        pl.format("v{}", pl.int_range(pl.len())).alias("record_id"), pl.concat_list("solving_operation"),
        status=pl.lit("ok"), exercise=pl.lit("central"), quality=pl.lit(5), confidence=pl.lit(1.0),
    )  # fmt: skip
    found = profiles(alone, rules=rules)
    categories = [found.categories[found.members[k, 0]].id for k in found.documents["profile"]]
    guards = [found.guards[k] for k in found.documents["profile"]]
    values.with_columns(category_id=pl.Series(categories), guard=pl.Series(guards, dtype=pl.String)).rename(
        {"solving_operation": "operation"}
    ).write_parquet(folder / "values.parquet")
    gains = Gains(matches, found, rules)
    shares = pl.DataFrame({"slice_id": gains.slice_ids, "share": gains.shares})
    quota = pl.col("share") ** QUOTA_POWER / (pl.col("share") ** QUOTA_POWER).sum()
    exercises = [rule.id for rule in rules.rules if rule.direction == "exercises"]
    matches.select("slice_id", "category_id", "affinity", "rule_ids").with_columns(
        practised=pl.col("rule_ids").list.eval(pl.element().is_in(exercises)).list.any()
    ).join(shares.with_columns(quota=quota), on="slice_id").write_parquet(folder / "affinities.parquet")
    grades = {"exercise": rules.exercise, "quality": rules.quality, "position": rules.position}
    (folder / "grades.json").write_text(json.dumps(grades), "utf-8")


def run_annotator(folder: Path, budget_tokens: int, max_repeats: int) -> dict[str, Any]:
    """Match and rank, as the commands do, without texts."""
    import polars as pl

    from annotator.mapping import load_rules
    from annotator.match import match
    from annotator.rank import rank
    from annotator.tables import write_table
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy()
    rules = load_rules(taxonomy=taxonomy)
    began = time.perf_counter()
    labels = pl.scan_parquet(folder / "labels.parquet")
    documents = pl.scan_parquet(folder / "documents.parquet")
    slices = pl.read_parquet(folder / "slices.parquet")
    found = match(slices, labels, rules=rules, taxonomy=taxonomy, documents=documents)
    matched = time.perf_counter()
    ranking = rank(
        found.table, labels, documents, None, rules=rules, budget_tokens=budget_tokens, max_repeats=max_repeats,
        near_duplicates=False, max_source_share=SOURCE_SHARE,
    )  # fmt: skip
    write_table(ranking.chosen, folder / "annotator.chosen.parquet")
    write_table(ranking.dropped, folder / "annotator.dropped.parquet")
    return {"match_s": matched - began, "wall_s": time.perf_counter() - began}


def run_pandas(folder: Path, budget_tokens: int, max_repeats: int) -> dict[str, Any]:
    """The same query as one would write it in pandas."""
    import pandas as pd

    grades = json.loads((folder / "grades.json").read_text("utf-8"))
    began = time.perf_counter()
    axes = ["background_condition", "task_type", "exercise", "output_constraint"]
    labels = pd.read_parquet(
        folder / "labels.parquet", columns=["record_id", "status", "solving_operation", *axes, "quality", "confidence"]
    )
    documents = pd.read_parquet(folder / "documents.parquet")
    affinities, values = pd.read_parquet(folder / "affinities.parquet"), pd.read_parquet(folder / "values.parquet")
    # distinct combinations of labels, their categories, and the gain of each
    labels["operations"] = labels["solving_operation"].str.join("+")
    labels["combination"] = labels.groupby(["operations", *axes], dropna=False, sort=False).ngroup()
    combinations = labels.drop_duplicates("combination")[["combination", "operations", *axes]]
    parts = combinations.assign(operation=combinations["operations"].str.split("+")).explode("operation")
    parts["position"] = np.asarray(grades["position"])[parts.groupby("combination").cumcount()]
    parts = parts.merge(values, on=["operation", "background_condition", "task_type", "output_constraint"])
    pairs = parts.merge(affinities, on="category_id")
    practised = pairs["exercise"].map(grades["exercise"]).fillna(1.0).where(pairs["practised"], 1.0)
    pairs["rest"] = 1.0 - pairs["position"] * pairs["affinity"] * practised
    pairs["per_place"] = pairs["share"] * pairs["affinity"] * practised * pairs["position"]
    pooled = pairs.groupby(["combination", "slice_id"], as_index=False).agg(
        rest=("rest", "prod"), share=("share", "first"), quota=("quota", "first")
    )
    pooled["mine"] = pooled["share"] * (1.0 - pooled["rest"])
    pooled = pooled.sort_values(["combination", "mine", "slice_id"], ascending=[True, False, True])
    gains = pooled.groupby("combination").agg(
        gain=("mine", "sum"), home=("slice_id", "first"), quota=("quota", "first"), slice_ids=("slice_id", list)
    )
    rule_ids = pairs.explode("rule_ids").drop_duplicates(["combination", "rule_ids"])
    rule_ids = rule_ids.groupby("combination")["rule_ids"].agg(sorted)
    best = pairs.groupby(["combination", "category_id"], as_index=False)["per_place"].sum()
    best = best.sort_values("per_place", ascending=False).drop_duplicates("combination").set_index("combination")
    guards = parts.groupby("combination")["guard"].first()
    # what each category holds
    table = documents.merge(labels, left_on="doc_id", right_on="record_id", how="left")
    sizes = table.groupby("combination")["tokens"].agg(["size", "sum"])
    held = parts[parts["guard"].isna()].drop_duplicates(["combination", "category_id"]).join(sizes, on="combination")
    held.groupby("category_id")[["size", "sum"]].sum().to_parquet(folder / "pandas.supply.parquet")
    # scores, and what is out already
    table["gain"] = table["combination"].map(gains["gain"].round(9)).fillna(0.0)
    table["guard"] = table["combination"].map(guards)
    worth = table["quality"].map({int(k): v for k, v in grades["quality"].items()}).fillna(0.6)
    table["score"] = (table["gain"] * worth * table["confidence"].fillna(1.0)).round(9)
    table["reason"] = np.select(
        [table["status"] != "ok", table["guard"].notna(), table["gain"] <= 0, worth <= 0],
        ["off_slice", "off_slice", "off_slice", "low_quality"], "",
    )  # fmt: skip
    table["detail"] = np.select(
        [table["status"] != "ok", table["guard"].notna(), table["gain"] <= 0, worth <= 0],
        ["no usable label", "guard " + table["guard"].fillna(""), "no matched slice",
         "quality " + table["quality"].astype(str)], "",
    )  # fmt: skip
    # queues by slice, merged by quota; the cap on sources; the budget
    usable = table.loc[table["reason"] == "", ["doc_id", "source", "tokens", "score", "combination"]]
    usable = usable.join(gains[["home", "quota"]], on="combination")
    passes = pd.concat([usable.assign(passed=k, value=usable["score"] / k) for k in range(1, max_repeats + 1)])
    passes = passes.sort_values(["home", "value", "doc_id", "passed"], ascending=[True, False, True, True])
    passes["finish"] = passes.groupby("home")["tokens"].cumsum() / passes["quota"]
    passes = passes.sort_values("finish", kind="stable")
    passes = passes[passes.groupby("source")["tokens"].cumsum() <= SOURCE_SHARE * budget_tokens]
    passes = passes[passes["tokens"].cumsum() <= budget_tokens]
    repeats = passes.groupby("doc_id").size().rename("repeats")
    chosen = usable.join(repeats, on="doc_id", how="inner").sort_values("score", ascending=False)
    chosen = chosen.join(gains["slice_ids"], on="combination").join(rule_ids, on="combination")
    chosen = chosen.join(best["category_id"], on="combination").drop(columns=["home", "quota", "combination"])
    chosen.to_parquet(folder / "pandas.chosen.parquet")
    dropped = table.loc[~table["doc_id"].isin(chosen["doc_id"]), ["doc_id", "reason", "detail", "score"]]
    late = dropped["reason"] == ""
    dropped["detail"] = dropped["detail"].where(~late, "score " + dropped["score"].round(4).astype(str))
    dropped["reason"] = dropped["reason"].where(~late, "over_budget")
    dropped.drop(columns="score").sort_values("doc_id").to_parquet(folder / "pandas.dropped.parquet")
    return {"wall_s": time.perf_counter() - began}


def run_duckdb(folder: Path, budget_tokens: int, max_repeats: int) -> dict[str, Any]:
    """The same query in SQL."""
    import duckdb

    grades = json.loads((folder / "grades.json").read_text("utf-8"))

    def cases(column: str, values: dict[str, float], otherwise: float) -> str:
        whens = " ".join(f"when '{value}' then {factor}" for value, factor in values.items())
        return f"case cast({column} as varchar) {whens} else {otherwise} end"

    connection = duckdb.connect()
    connection.execute(f"set threads = {THREADS}")
    axes = "solving_operation, background_condition, task_type, exercise, output_constraint"
    worth = cases("quality", grades["quality"], 0.6)
    same_labels = " and ".join(f"c.{axis} is not distinct from l.{axis}" for axis in axes.split(", "))
    steps = f"""
        create view labels as select * from '{folder}/labels.parquet';
        create view documents as select * from '{folder}/documents.parquet';
        create table combinations as
            select row_number() over () as combination, * from (select distinct {axes} from labels where status = 'ok');
        create table parts as
            select c.combination, c.exercise, v.category_id, v.guard, {list(grades["position"])}[c.k] as position
            from (select *, unnest(solving_operation) as operation, generate_subscripts(solving_operation, 1) as k
                  from combinations) c
            join '{folder}/values.parquet' v using (operation, background_condition, task_type, output_constraint);
        create table pairs as
            select *, affinity * position * case when practised then {cases("exercise", grades["exercise"], 1.0)}
                      else 1.0 end as pull
            from parts join '{folder}/affinities.parquet' using (category_id);
        create table gains as
            select combination, round(sum(mine), 9) as gain, arg_max(slice_id, mine) as home,
                   arg_max(quota, mine) as quota, list(slice_id order by mine desc, slice_id) as slice_ids
            from (select combination, slice_id, any_value(quota) as quota,
                         any_value(share) * (1 - product(1 - pull)) as mine
                  from pairs group by combination, slice_id) group by combination;
        create table reasons as
            select combination, arg_max(category_id, total) as category_id,
                   list_sort(list_distinct(flatten(list(rules)))) as rule_ids
            from (select combination, category_id, sum(share * pull) as total, flatten(list(rule_ids)) as rules
                  from pairs group by combination, category_id) group by combination;
        create table scored as
            select d.doc_id, d.source, d.tokens, c.combination, g.home, g.quota, p.guard, l.quality,
                   {worth} as worth, coalesce(g.gain, 0) as gain,
                   round(coalesce(g.gain, 0) * {worth} * coalesce(l.confidence, 1), 9) as score
            from documents d left join labels l on d.doc_id = l.record_id
            left join combinations c on {same_labels}
            left join gains g using (combination)
            left join (select distinct combination, guard from parts) p using (combination);
        copy (select category_id, sum(n) as documents, sum(tokens) as tokens
              from (select distinct combination, category_id from parts where guard is null)
              join (select combination, count(*) as n, sum(tokens) as tokens from scored group by combination)
              using (combination) group by category_id) to '{folder}/duckdb.supply.parquet';
        create table chosen as
            with passes as (
                select doc_id, source, tokens, home, quota, passed, score / passed as value
                from scored, range(1, {max_repeats + 1}) r(passed)
                where guard is null and gain > 0 and worth > 0),
            queued as (
                select doc_id, source, tokens, home, passed, value, sum(tokens) over (
                    partition by home order by value desc, doc_id, passed rows unbounded preceding) / quota as finish
                from passes),
            capped as (
                select *, sum(tokens) over (
                    partition by source order by finish, home, passed rows unbounded preceding) as of_source
                from queued),
            spent as (
                select *, sum(tokens) over (order by finish, home, passed rows unbounded preceding) as so_far
                from capped where of_source <= {int(SOURCE_SHARE * budget_tokens)})
            select doc_id, count(*) as repeats from spent where so_far <= {budget_tokens} group by doc_id;
        copy (select doc_id, source, tokens, score, repeats, category_id, slice_ids, rule_ids
              from chosen join scored using (doc_id) join gains using (combination) join reasons using (combination)
              order by score desc) to '{folder}/duckdb.chosen.parquet' (compression zstd);
        copy (select doc_id,
                     case when combination is null or guard is not null or gain <= 0 then 'off_slice'
                          when worth <= 0 then 'low_quality' else 'over_budget' end as reason,
                     case when combination is null then 'no usable label' when guard is not null then 'guard ' || guard
                          when gain <= 0 then 'no matched slice' when worth <= 0 then 'quality ' || quality
                          else 'score ' || round(score, 4) end as detail
              from scored anti join chosen using (doc_id) order by doc_id)
            to '{folder}/duckdb.dropped.parquet' (compression zstd);
    """
    began = time.perf_counter()
    for step in steps.split(";\n"):
        if step.strip():
            connection.execute(step)
    return {"wall_s": time.perf_counter() - began}


RUNS = {"annotator": run_annotator, "pandas": run_pandas, "duckdb": run_duckdb}


def measured(python: str, program: str, folder: Path, budget_tokens: int, max_repeats: int) -> dict[str, Any]:
    """Run one program in a process of its own."""
    command = [python, __file__, "--program", program, "--folder", str(folder), "--budget", str(budget_tokens),
               "--max-repeats", str(max_repeats)]  # fmt: skip
    environment = os.environ | {"POLARS_MAX_THREADS": str(THREADS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return json.loads(done.stdout)


def agreement(folder: Path, program: str) -> dict[str, Any]:
    """How much of a peer's list is in ours too, passes counted, and whether it accounts for every document."""
    import polars as pl

    ours = pl.read_parquet(folder / "annotator.chosen.parquet", columns=["doc_id", "repeats"])
    theirs = pl.read_parquet(folder / f"{program}.chosen.parquet", columns=["doc_id", "repeats"])
    both = ours.join(theirs, on="doc_id").select(pl.min_horizontal("repeats", "repeats_right").sum()).item()
    dropped = pl.scan_parquet(folder / f"{program}.dropped.parquet").select(pl.len()).collect().item()
    return {"in_ours": round(both / max(theirs["repeats"].sum(), 1), 4), "rows": theirs.height + dropped}


def main() -> None:
    """Parse the command line and print a line per program and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, help="a real table of document labels to draw from")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--max-repeats", type=int, default=4)
    parser.add_argument("--shuffled", action="store_true", help="documents in another order than their labels")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with pandas, pyarrow and duckdb")
    parser.add_argument("--program", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        result = RUNS[options.program](options.folder, options.budget, options.max_repeats)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps(result | {"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 1e6}))
        return
    peers = ("duckdb", "pandas") if options.peers else ()
    programs = {"annotator": sys.executable} | dict.fromkeys(peers, options.peers)
    for count in options.documents:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_documents(options.labels, count, folder, options.shuffled)
            make_slices(options.slices, folder)
            make_lookups(folder)
            for program, python in programs.items():
                result = measured(python, program, folder, count * 100, options.max_repeats)
                if program != "annotator" and "failed" not in result:
                    result |= agreement(folder, program)
                shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
                print(f"{count:>12,} documents  {program:<10}", shown, flush=True)


if __name__ == "__main__":
    main()

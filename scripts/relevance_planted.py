"""Which rankings bring up documents that quote the very items that fail? Counted on a corpus with planted quotations.

    python scripts/relevance_planted.py --data ../shared/data --out FOLDER
    python scripts/relevance_planted.py --counted docs/relevance/planted.json

Few documents of the real corpus quote a benchmark. Here fifty failing items of each slice of bench_relevance.py, all of
them queries of the rankings, are put into real documents, one into each, as a paragraph of its own; half of them with
options and answer. The planted documents take the place of the real ones, get labels by the same judge, and every
ranking runs over the whole corpus as it does there. FOLDER is bench_relevance.py's: document_labels.parquet and
item_labels.parquet, which are made where they are missing, and the models that it keeps. The first form writes
FOLDER/planted.json and prints it, the second prints an earlier one. Needs what bench_relevance.py needs.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from bench_relevance import (
    DEPTHS,
    JUDGE,
    METHODS,
    STUDIED,
    Baselines,
    failing,
    interval,
    item_texts,
    members,
    quoting,
    read_corpus,
    slice_row,
    wrong_items,
)
from relevance_rankings import Corpus, by_chance, ours

from annotator.judges import open_judge
from annotator.judges.features import window
from annotator.label import label
from annotator.slicing.lattice import described_by
from annotator.tables import read_labels, write_json
from annotator.taxonomy import AXES, Taxonomy

PLANTS = 50  # of each slice
LEAST_WORDS = 300  # of a carrier, so that the quotation is not most of it
UNPLANTED, FILTERED = "ours, unplanted", "ours, filter on"  # carriers in the lists of the corpus as it was


@dataclass(frozen=True, slots=True)
class Plant:
    """A failing item of a slice in a document, its carrier; `answered`: with its options and answer."""

    slice_name: str
    item_id: str
    carrier: str
    answered: bool

    @property
    def doc_id(self) -> str:
        """Beside the carrier's in order of id, by which ties are broken."""
        return f"{self.carrier}+planted"


class Ranker(Protocol):
    """What `Baselines` does."""

    def ranked(self, queries: list[str], seed: str) -> dict[str, list[str]]:
        """Method -> ids, best first."""


def carriers_of(documents: pl.DataFrame, contaminated: Collection[str]) -> list[str]:
    """Ids of the documents that may carry a quotation: long enough, and without one so far."""
    long = pl.col("text").str.count_matches(r"\S+") >= LEAST_WORDS
    return documents.filter(long, ~pl.col("doc_id").is_in(list(contaminated)))["doc_id"].to_list()


def choose(queries: Mapping[str, Sequence[str]], carriers: Sequence[str], count: int = PLANTS) -> list[Plant]:
    """For each slice name, `count` of its items, or all where there are fewer; every plant in a carrier of its own."""
    chosen = [
        (name, item_id, place % 2 == 0)
        for name, item_ids in queries.items()
        for place, item_id in enumerate(by_chance(item_ids, f"plant {name}")[:count])
    ]
    if len(carriers) < len(chosen):
        raise ValueError(f"{len(chosen)} quotations need as many carriers, and there are {len(carriers)}")
    drawn = by_chance(carriers, "carriers")
    return [Plant(name, item_id, carrier, answered) for (name, item_id, answered), carrier in zip(chosen, drawn)]


def quotation(item: Mapping[str, Any], *, answered: bool) -> str:
    """An item's question; with `answered` also its lettered options and its answer, as far as it has them."""
    if not answered:
        return item["prompt"]
    options = [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(item["choices"] or [])]
    answer = [f"Answer: {item['target']}"] if item["target"] else []
    return "\n".join([item["prompt"], *options, *answer])


def inserted(text: str, paragraph: str, seed: str) -> str:
    """The text with a paragraph more, between two of its own, before the first or after the last, by the seed."""
    bounds = [0, *(found.end() for found in re.finditer(r"\n\s*\n", text)), len(text)]
    place = int(by_chance([str(bound) for bound in bounds], seed)[0])
    parts = (text[:place].rstrip("\n"), paragraph, text[place:].lstrip("\n"))
    return "\n\n".join(part for part in parts if part)


def planted_documents(corpus: Corpus, plants: Sequence[Plant]) -> pl.DataFrame:
    """One row a plant, with the columns of the corpus: the carrier's, but for doc_id, text and tokens in proportion."""
    items = {row["item_id"]: row for row in corpus.items.select("item_id", "prompt", "choices", "target").to_dicts()}
    carriers = {row["doc_id"]: row for row in corpus.documents.to_dicts()}
    rows = []
    for plant in plants:
        carrier = carriers[plant.carrier]
        text = inserted(carrier["text"], quotation(items[plant.item_id], answered=plant.answered), plant.doc_id)
        tokens = round(carrier["tokens"] * len(text) / len(carrier["text"]))
        rows.append(carrier | {"doc_id": plant.doc_id, "text": text, "tokens": tokens})
    return pl.DataFrame(rows, schema=corpus.documents.schema)


def labels_now(documents: pl.DataFrame, taxonomy: Taxonomy) -> pl.DataFrame:
    """LABELS of some documents by the judge of the study as it is installed."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "documents.parquet", Path(folder) / "labels.parquet"
        documents.write_parquet(source)
        label([source], out=out, judge=open_judge(JUDGE, kind="document", taxonomy=taxonomy), cache_dir=None)
        return read_labels(out, "document")


def planted_corpus(corpus: Corpus, plants: Sequence[Plant]) -> Corpus:
    """The corpus with the planted documents in the place of their carriers.

    Raises:
        ValueError: the corpus was labelled by another judge than the planted documents would be.
    """
    planted = planted_documents(corpus, plants)
    carriers = pl.Series([plant.carrier for plant in plants], dtype=pl.String).implode()
    taken, out = pl.col("doc_id").is_in(carriers), pl.col("record_id").is_in(carriers)
    known, again = corpus.labels.filter(out), labels_now(corpus.documents.filter(taken), corpus.taxonomy)
    shown = ["record_id", *AXES, "exercise", "quality", "confidence"]
    if not known.select(shown).sort("record_id").equals(again.select(shown).sort("record_id")):
        raise ValueError(f"document_labels.parquet is not by {JUDGE} as installed: remove it to label again")
    labels = labels_now(planted, corpus.taxonomy).select(corpus.labels.columns)
    return replace(
        corpus,
        documents=pl.concat([corpus.documents.filter(~taken), planted]).sort("doc_id"),
        labels=pl.concat([corpus.labels.filter(~out), labels]).sort("record_id"),
    )


def count_planted(
    rows: Mapping[str, pl.DataFrame],
    queries: Mapping[str, Sequence[str]],
    corpus: Corpus,
    planted: Corpus,
    plants: Sequence[Plant],
    baselines: Ranker,
) -> dict[str, Any]:
    """Slice name -> which planted documents each method lists, and at which ranks.

    Args:
        rows, queries: SLICES of one row, and ids of failing items, by slice name.
        corpus, planted: without and with the plants. Where ours lists carriers of the first tells what it lists for
            the quotation's sake.
        baselines: of the second.
    """
    by_id, by_carrier = ({getattr(plant, key): plant.doc_id for plant in plants} for key in ("doc_id", "carrier"))
    deepest, slices = DEPTHS[-1], {}
    for name, row in rows.items():
        slice_id = row["slice_id"][0]
        lists = baselines.ranked(item_texts(corpus.items, queries[name]), slice_id)
        slices[name] = {
            "slice_id": slice_id,
            "lists": {method: {str(deepest): ranks(ids, by_id)} for method, ids in lists.items()}
            | {
                "ours": {str(depth): ranks(ours(row, planted, depth, filtered=False), by_id) for depth in DEPTHS},
                UNPLANTED: {
                    str(depth): ranks(ours(row, corpus, depth, filtered=False), by_carrier) for depth in DEPTHS
                },
                # Slow; and as the filter judges a document alone, whom it stops here it stops in shorter lists.
                FILTERED: {str(deepest): ranks(ours(row, planted, deepest, filtered=True), by_id)},
            },
        }
        print(f"{slice_id}: done", flush=True)
    return slices


def ranks(ids: Sequence[str], planted: Mapping[str, str]) -> dict[str, Any]:
    """How many documents are listed, and the ranks of those that are keys of `planted`, under its values."""
    return {
        "listed": len(ids),
        "ranks": {planted[doc_id]: rank for rank, doc_id in enumerate(ids, 1) if doc_id in planted},
    }


def described(corpus: Corpus, planted: Corpus, plants: Sequence[Plant]) -> dict[str, dict[str, Any]]:
    """doc_id -> the plant.

    flagged: by `decontaminate`. read: the judge's window holds the quotation. before, after: operations in the label of
    the carrier and of the planted document.
    """
    ids = pl.Series([plant.doc_id for plant in plants], dtype=pl.String).implode()
    documents = planted.documents.filter(pl.col("doc_id").is_in(ids))
    hits = quoting(replace(planted, documents=documents))[0]
    texts = dict(documents.select("doc_id", "text").iter_rows())
    heads = dict(corpus.items.select("item_id", pl.col("prompt").str.slice(0, 80)).iter_rows())
    before, after = (dict(c.labels.select("record_id", "solving_operation").iter_rows()) for c in (corpus, planted))
    return {
        plant.doc_id: {
            "slice": plant.slice_name,
            "item_id": plant.item_id,
            "answered": plant.answered,
            "flagged": plant.doc_id in hits,
            "read": heads[plant.item_id] in window(texts[plant.doc_id]),
            "before": sorted(before[plant.carrier]),
            "after": sorted(after[plant.doc_id]),
        }
        for plant in plants
    }


def run(data: Path, folder: Path) -> dict[str, Any]:
    """What planted.json holds."""
    corpus, wrong = read_corpus(data, folder), wrong_items(data)
    rows, queries = {}, {}
    for name, slice_id in STUDIED.items():
        item_ids = members(described_by(slice_id), corpus.item_labels)
        rows[name], queries[name] = slice_row(slice_id, item_ids), failing(item_ids, wrong, slice_id)[0]
    plants = choose(queries, carriers_of(corpus.documents, quoting(corpus)[0]))
    planted = planted_corpus(corpus, plants)
    slices = count_planted(rows, queries, corpus, planted, plants, Baselines(planted, folder))
    return {"documents": corpus.documents.height, "slices": slices, "plants": described(corpus, planted, plants)}


def table_of(study: Mapping[str, Any]) -> pl.DataFrame:
    """One row a slice, method and depth, in order of slice. A method with one list, the longest, has that one cut.

    listed: documents, at most `depth`. planted: those with any slice's quotation. own: with this slice's. even: planted
    among the first so many as ours lists there.
    """
    rows = []
    for name, entry in sorted(study["slices"].items()):
        for depth in DEPTHS:
            length = entry["lists"]["ours"][str(depth)]["listed"]
            for method, by_depth in entry["lists"].items():
                found = by_depth.get(str(depth), by_depth[str(DEPTHS[-1])])
                at = {doc_id: rank for doc_id, rank in found["ranks"].items() if rank <= depth}
                rows.append(
                    {
                        "slice": name,
                        "method": method,
                        "depth": depth,
                        "listed": min(depth, found["listed"]),
                        "planted": len(at),
                        "own": sum(study["plants"][doc_id]["slice"] == name for doc_id in at),
                        "even": sum(rank <= length for rank in at.values()),
                    }
                )
    return pl.DataFrame(rows)


def show(study: Mapping[str, Any]) -> None:
    """Print the planted documents in the lists, over all slices and in each, and what quotations do to labels."""
    table, plants = table_of(study), study["plants"]
    print(f"\n{len(plants)} planted in {study['documents']} documents: listed planted, of them of the slice / listed;")
    print("more than ours, 95 % bootstrap over slices; the same with lists as long as ours")
    methods = [method for method in (*METHODS, UNPLANTED, FILTERED) if method in set(table["method"])]
    for depth in DEPTHS:
        print(f"\nin the first {depth}; by slice: {' '.join(sorted(study['slices']))}")
        at = table.filter(pl.col("depth") == depth)
        for method in methods:
            mine = at.filter(pl.col("method") == method)
            by_slice = " ".join(f"{planted:>2}" for planted in mine["planted"])
            print(f"  {method:<16} {compared(mine, at.filter(pl.col('method') == 'ours')):<88} {by_slice}")
    show_labels(study)
    missed = [f"{doc_id} ({plant['item_id']})" for doc_id, plant in plants.items() if not plant["flagged"]]
    print(f"not flagged by decontaminate: {len(missed)} {' '.join(missed)}")


def compared(mine: pl.DataFrame, own: pl.DataFrame) -> str:
    """Sums over slices of one method at one depth, and of its differences to ours, with bootstrap intervals."""
    cell = f"{mine['planted'].sum():>3}, {mine['own'].sum():>3} / {mine['listed'].sum():>4}"
    for column in ("planted", "even"):
        more = (mine[column] - own["planted"]).to_numpy().astype(np.float64)
        low, high = (round(bound * len(more)) for bound in interval(more))
        cell += f"   {mine[column].sum():>3}: {more.sum():+.0f} [{low:+d}, {high:+d}]"
    return cell


def show_labels(study: Mapping[str, Any]) -> None:
    """Print what the quotations change in the labels, and what in the longest lists of ours, with ranks."""
    plants, deepest = study["plants"], str(DEPTHS[-1])
    read = sum(plant["read"] for plant in plants.values())
    other = sum(plant["before"] != plant["after"] for plant in plants.values())
    print(f"\nthe judge's window holds {read} of the quotations; {other} planted documents have other operations than")
    gained = 0
    for plant in plants.values():
        sought = set(described_by(study["slices"][plant["slice"]]["slice_id"]).solving_operation)
        gained += sought <= set(plant["after"]) and not sought <= set(plant["before"])
    print(f"their carriers, {gained} gain that of their slice; in the first {deepest} of ours:")
    for name, entry in sorted(study["slices"].items()):
        without, listed = (entry["lists"][method][deepest]["ranks"] for method in (UNPLANTED, "ours"))
        for doc_id, rank in listed.items():
            plant, earlier = plants[doc_id], without.get(doc_id, "not listed")
            labels = f"{' '.join(plant['before'])} -> {' '.join(plant['after'])}"
            print(f"  {name} {rank}, its carrier {earlier}: {doc_id}, quotes an item of {plant['slice']}; {labels}")


def main() -> None:
    """Parse the command line; plant, rank, count and print, or print only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, help="folder of bench_relevance.py with its labels; gets planted.json")
    parser.add_argument("--counted", type=Path, help="a planted.json to print")
    options = parser.parse_args()
    if options.counted:
        show(json.loads(options.counted.read_text("utf-8")))
    elif options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        study = run(options.data, options.out)
        write_json(options.out / "planted.json", study)
        show(study)
    else:
        parser.error("give --out or --counted")


if __name__ == "__main__":
    main()

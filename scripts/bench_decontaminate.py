"""Recall, false flags and speed of decontamination, beside lm-evaluation-harness' Janitor and datatrove's filter.

    python scripts/bench_decontaminate.py --documents CORPUS --items ITEMS [--peers PYTHON ...] [--flags]

Speed is text read per second of processor time in one process, the index being built before; peers run on the same
texts and items in the Python that has them (lm_eval, datatrove), named by --peers. For recall, questions of items drawn
at random are planted in documents drawn at random, as they stand and after light edits; a plant counts as found if its
document is flagged for its item, all items being looked for. --flags reads all documents without plants and lists
every one that is flagged, to be judged by eye.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

EDITS = ("verbatim", "case", "spacing", "punctuation", "markup", "one word in twelve")
BANDS = ((1, "1-4"), (5, "5-7"), (8, "8-11"), (12, "12-31"), (32, "32+"))  # words of a question, from


def edited(text: str, kind: str, drawn: random.Random) -> str:
    """A light edit of a question."""
    tokens = text.split()
    if kind == "case":
        return drawn.choice([str.upper, str.lower, str.title])(text)
    if kind == "spacing":
        return "".join(token + drawn.choice([" ", "\n", "  ", "\t"]) for token in tokens)
    if kind == "punctuation":
        return " ".join(token.strip('.,;:!?"') + drawn.choice(["", "", ",", " -"]) for token in tokens)
    if kind == "markup":
        text = re.sub(r"\\(left|right|displaystyle|,|;|!)|[$]", " ", text)
        return " ".join(drawn.choice(["{}", "{}", "**{}**", "\\text{{{}}}"]).format(token) for token in text.split())
    if kind == "one word in twelve":
        return " ".join("pelican" if drawn.random() < 1 / 12 else token for token in tokens)
    return text


def recall(items, fillers: list[str], plants: int) -> None:
    """Print the share of planted questions that are found, by kind of edit and by length of the question."""
    import polars as pl

    from annotator.decontaminate import decontaminate
    from annotator.decontamination.ngrams import split_words

    drawn = random.Random(0)
    chosen = items.filter(pl.col("prompt").str.len_chars() < 4000).sample(plants, seed=0)
    lengths = [len(split_words([prompt])) for prompt in chosen["prompt"]]
    bands = [next((name for least, name in reversed(BANDS) if length >= least), BANDS[0][1]) for length in lengths]
    print(f"recall over {plants} planted questions, by words of the question; under 5 words only as lines of their own")
    print(f"  {'':<20}    all  5 words on " + "".join(f"{name:>8}" for _, name in BANDS))
    for kind in EDITS:
        texts = []
        for prompt in chosen["prompt"]:
            filler = drawn.choice(fillers)[:4000]
            cut = drawn.randint(0, len(filler))
            texts.append(f"{filler[:cut]}\n\n{edited(prompt, kind, drawn)}\n\n{filler[cut:]}")
        planted = pl.DataFrame({"doc_id": chosen["item_id"], "text": texts})
        hits = decontaminate(planted, items).hits.filter(pl.col("part") == "question")
        found = set(hits.filter(pl.col("doc_id") == pl.col("item_id"))["doc_id"])
        of_band: dict[str, list[bool]] = {name: [] for _, name in BANDS}
        for item_id, band in zip(chosen["item_id"], bands, strict=True):
            of_band[band].append(item_id in found)
        shares = "".join(f"{sum(hit) / len(hit):8.3f}" if hit else f"{'-':>8}" for hit in of_band.values())
        longer = [item_id in found for item_id, length in zip(chosen["item_id"], lengths, strict=True) if length >= 5]
        print(f"  {kind:<20} {len(found) / plants:.4f}        {sum(longer) / len(longer):.4f} {shares}", flush=True)


def flags(items, documents: list[str]) -> None:
    """Print every document that is flagged though nothing was planted, with its longest quotation."""
    import polars as pl

    from annotator.decontaminate import decontaminate

    found = decontaminate(documents, items)
    count, read = found.summary["flagged_documents"], found.summary["documents"]
    print(f"{count} of {read:,} documents flagged ({count / read:.3%}), nothing being planted")
    size = (pl.col("end") - pl.col("start")).alias("characters")
    longest = found.hits.with_columns(size).sort("characters", "item_id", descending=[True, False])
    for row in longest.unique("doc_id", keep="first", maintain_order=True).iter_rows(named=True):
        print(f"  {row['doc_id'][:16]:<16} {row['item_id']:<32.32} {row['part']:<9} {row['rule']:<8} "
              f"{row['coverage']:.2f} {row['characters']:>5} {row['span'][:90]!r}")  # fmt: skip


def timed(texts: list[str], look: Callable[[list[str]], int]) -> dict[str, float]:
    """Megabytes per second of processor time, and documents flagged."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    began = time.process_time()
    flagged = look(texts)
    return {"rate": size / (time.process_time() - began), "flagged": flagged}


def ours(items, texts: list[str]) -> dict[str, float]:
    """This package, looking for all parts of all items."""
    import polars as pl

    from annotator.decontaminate import Finder, text_batches
    from annotator.decontamination.ngrams import split_words
    from annotator.decontamination.quoted import ItemIndex

    finder = Finder(ItemIndex(items), threshold=0.5, strict_threshold=0.3, strict_items=())

    def look(texts: list[str]) -> int:
        flagged: set[str] = set()
        frame = pl.DataFrame({"doc_id": [str(k) for k in range(len(texts))], "text": texts})
        for batch in text_batches(frame):
            flagged |= {hit["doc_id"] for hit in finder.hits(batch, split_words(batch["text"].to_list()))}
        return len(flagged)

    return timed(texts, look)


def janitor(prompts: list[str]) -> Callable[[list[str]], int]:
    """lm-evaluation-harness, with its defaults (13 words), in Python as installed from PyPI; questions only."""
    from lm_eval.decontamination.janitor import Janitor

    cleaner = Janitor()
    for prompt in prompts:
        cleaner.register_contaminant(prompt)
    return lambda texts: sum(len(cleaner.clean(text)) != 1 for text in texts)


def datatrove(prompts: list[str]) -> Callable[[list[str]], int]:
    """datatrove's filter (12 words), looking for questions too, its index filled in memory; questions only."""
    from datatrove.data import Document
    from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer

    config = NGramsDecontConfig(find_query_ngrams=True)
    indexer = NGramsDecontIndexer.__new__(NGramsDecontIndexer)
    filtering = NGramsDecontFilter(tempfile.mkdtemp(), config=config)
    indexer.config, indexer.tokenizer, indexer.hash_func = config, filtering.tokenizer, filtering.hash_func
    hashes = (h for prompt in prompts for h in indexer.compute_hashes("", prompt))
    filtering._index_hashes = dict.fromkeys(hashes, "items")
    return lambda texts: sum(
        filtering.filter(Document(text=text, id=str(k))) is not True for k, text in enumerate(texts)
    )


PEERS = {"janitor": janitor, "datatrove": datatrove}


def run_peer(name: str, given: Path) -> None:
    """Measure a peer in this Python and print the result as JSON."""
    texts, prompts = json.loads(given.read_text("utf-8"))
    print(json.dumps(timed(texts, PEERS[name](prompts))))


def measured(name: str, given: Path, pythons: list[str]) -> dict[str, float] | str:
    """What a peer measures in the first Python that has it, or the reason why none does."""
    reason = "no --peers given"
    for python in pythons:
        command = [python, __file__, "--run-peer", name, "--given", str(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
    return reason


def speed(items, texts: list[str], pythons: list[str]) -> None:
    """Print megabytes per second of all contenders, in one run on the same texts."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"speed over {size:.1f} MB against {items.height:,} items, processor time of one process")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.json"
        given.write_text(json.dumps([texts, items["prompt"].to_list()]), "utf-8")
        own = ours(items, texts)
        print(f"  {'ours':<10} {own['rate']:8.2f} MB/s   {own['flagged']} flagged", flush=True)
        for name in PEERS:
            theirs = measured(name, given, pythons)
            if isinstance(theirs, str):
                print(f"  {name:<10} not measured: {theirs}")
                continue
            ratio = own["rate"] / theirs["rate"]
            print(f"  {name:<10} {theirs['rate']:8.2f} MB/s   {theirs['flagged']} flagged   ours is {ratio:.1f} times")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", nargs="+")
    parser.add_argument("--items", nargs="+")
    parser.add_argument("--megabytes", type=float, default=8.0)
    parser.add_argument("--plants", type=int, default=2000)
    parser.add_argument("--peers", nargs="+", default=[sys.executable], help="Pythons that have lm_eval or datatrove")
    parser.add_argument("--flags", action="store_true", help="list what is flagged in all documents")
    parser.add_argument("--run-peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_peer:
        run_peer(options.run_peer, options.given)
        return
    from annotator.readers import read_documents, read_items

    items = read_items(options.items)
    texts: list[str] = []
    size = 0
    for frame in read_documents(options.documents):
        for text in frame["text"]:
            if size < options.megabytes * 1e6:
                texts.append(text)
                size += len(text.encode())
    speed(items, texts, options.peers)
    recall(items, texts, options.plants)
    if options.flags:
        flags(items, options.documents)


if __name__ == "__main__":
    main()

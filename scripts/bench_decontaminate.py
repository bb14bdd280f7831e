"""Speed and recall of decontamination, beside lm-evaluation-harness' Janitor and datatrove's n-gram filter.

    python scripts/bench_decontaminate.py --documents CORPUS --items ITEMS [--megabytes 8] [--peers]

Speed is text read per second of processor time in one process, the index being built before. For recall, questions of
items drawn at random are planted in documents drawn at random, as they stand and after light edits; a plant counts as
found if its document is flagged for its item. Peers are measured where they are installed (lm_eval, datatrove).
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable

import polars as pl

from annotator.decontaminate import Finder, decontaminate, text_batches
from annotator.decontamination.ngrams import split_words
from annotator.decontamination.quoted import ItemIndex
from annotator.readers import read_documents, read_items

EDITS = ("verbatim", "case", "spacing", "punctuation", "markup", "one word in twelve")


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


def recall(items: pl.DataFrame, fillers: list[str], plants: int) -> None:
    """Print the share of planted questions that are found, by kind of edit."""
    drawn = random.Random(0)
    chosen = items.filter(pl.col("prompt").str.len_chars() < 4000).sample(plants, seed=0)
    searched = {part.item_id for part in ItemIndex(chosen).parts if part.name == "question"}
    print(f"recall over {plants} planted questions; {plants - len(searched)} say too little to be looked for")
    for kind in EDITS:
        texts = []
        for prompt in chosen["prompt"]:
            filler = drawn.choice(fillers)[:4000]
            cut = drawn.randint(0, len(filler))
            texts.append(f"{filler[:cut]}\n\n{edited(prompt, kind, drawn)}\n\n{filler[cut:]}")
        planted = pl.DataFrame({"doc_id": chosen["item_id"], "text": texts})
        hits = decontaminate(planted, chosen).hits.filter(pl.col("part") == "question")
        found = set(hits.filter(pl.col("doc_id") == pl.col("item_id"))["doc_id"])
        print(f"  {kind:<20} all {len(found) / plants:.4f}   searchable {len(found & searched) / len(searched):.4f}")


def timed(name: str, texts: list[str], look: Callable[[list[str]], int]) -> float:
    """Print and give megabytes per second of processor time."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    began = time.process_time()
    flagged = look(texts)
    rate = size / (time.process_time() - began)
    print(f"  {name:<12} {rate:8.2f} MB/s a core   {size:6.1f} MB   {flagged} documents flagged", flush=True)
    return rate


def ours(items: pl.DataFrame) -> Callable[[list[str]], int]:
    """This package."""
    finder = Finder(ItemIndex(items), threshold=0.5, strict_threshold=0.3, strict_items=())

    def look(texts: list[str]) -> int:
        flagged: set[str] = set()
        frame = pl.DataFrame({"doc_id": [str(k) for k in range(len(texts))], "text": texts})
        for batch in text_batches(frame):
            flagged |= {hit["doc_id"] for hit in finder.hits(batch, split_words(batch["text"].to_list()))}
        return len(flagged)

    return look


def janitor(items: pl.DataFrame) -> Callable[[list[str]], int]:
    """lm-evaluation-harness, with its defaults (13 words), in Python as installed from PyPI."""
    from lm_eval.decontamination.janitor import Janitor

    cleaner = Janitor()
    for prompt in items["prompt"]:
        cleaner.register_contaminant(prompt)
    return lambda texts: sum(len(cleaner.clean(text)) != 1 for text in texts)


def datatrove(items: pl.DataFrame) -> Callable[[list[str]], int]:
    """datatrove's filter (12 words), also looking for questions, its index filled in memory."""
    import tempfile

    from datatrove.data import Document
    from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer

    config = NGramsDecontConfig(find_query_ngrams=True)
    folder = tempfile.mkdtemp()
    indexer = NGramsDecontIndexer.__new__(NGramsDecontIndexer)
    filtering = NGramsDecontFilter(folder, config=config)
    indexer.config, indexer.tokenizer, indexer.hash_func = config, filtering.tokenizer, filtering.hash_func
    hashes = (h for prompt in items["prompt"] for h in indexer.compute_hashes("", prompt))
    filtering._index_hashes = dict.fromkeys(hashes, "items")
    return lambda texts: sum(
        filtering.filter(Document(text=text, id=str(k))) is not True for k, text in enumerate(texts)
    )


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", nargs="+", required=True)
    parser.add_argument("--items", nargs="+", required=True)
    parser.add_argument("--megabytes", type=float, default=8.0)
    parser.add_argument("--plants", type=int, default=1000)
    parser.add_argument("--peers", action="store_true", help="also measure lm_eval and datatrove")
    options = parser.parse_args()
    items = read_items(options.items)
    texts: list[str] = []
    size = 0
    for frame in read_documents(options.documents):
        for text in frame["text"]:
            if size < options.megabytes * 1e6:
                texts.append(text)
                size += len(text.encode())
    print(f"speed against {items.height:,} items")
    rates = {}
    for peer in (ours, janitor, datatrove) if options.peers else (ours,):
        try:
            rates[peer.__name__] = timed(peer.__name__, texts, peer(items))
        except ImportError as error:
            print(f"  {peer.__name__:<12} not measured: {error}")
    for name, rate in rates.items():
        if name != "ours":
            print(f"  {rates['ours'] / rate:.1f} times {name}")
    recall(items, texts, options.plants)


if __name__ == "__main__":
    main()

"""Make annotator/judges/words.npz: a small vector for each common word, from a static model distilled off MiniLM.

    python scripts/make_word_vectors.py STATIC_MODEL_FOLDER --data ../shared/data

STATIC_MODEL_FOLDER is what `model2vec.distill.distill(model_name=..., pca_dims=256)` saved from all-MiniLM-L6-v2
(Apache-2.0; 26 seconds on one core). Needs `tokenizers` and `safetensors`, which the package itself does not. The
vector of a word is the sum of those of its word pieces, so that no tokeniser is needed when documents are labelled.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from annotator.judges.features import window, word_hashes

WORDS = 40_000
DIMENSIONS = 128
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|\\?[^\W\d_]+|[^\w\s]")


def word_counts(data: Path) -> Counter[str]:
    """In how many documents and items each word occurs."""
    counts: Counter[str] = Counter()
    for path in sorted((data / "corpus").glob("*.parquet")):
        for text in pl.read_parquet(path, columns=["text"])["text"]:
            counts.update(set(_WORD.findall(window(text).lower())))
    for path in sorted((data / "benchmarks").glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            counts.update(set(_WORD.findall(orjson.loads(line)["question"].lower())))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("annotator/judges/words.npz"))
    arguments = parser.parse_args()
    tokeniser = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    pieces = load_file(arguments.model / "model.safetensors")["embeddings"].astype(np.float64)[:, :DIMENSIONS]
    counts = word_counts(arguments.data)
    counts.update({piece: 2 for piece in tokeniser.get_vocab() if piece.isalpha() and len(piece) > 2})
    chosen = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
    by_hash: dict[int, np.ndarray] = {}
    for word in chosen:
        ids = [i for i in tokeniser.encode(word.lstrip("\\"), add_special_tokens=False).ids if i < len(pieces)]
        found = word_hashes(word).tolist()
        if ids and len(found) == 1:  # of two words with one hash the commoner stays
            by_hash.setdefault(found[0], pieces[ids].sum(axis=0))
    hashes = np.array(sorted(by_hash), dtype=np.uint32)
    vectors = np.array([by_hash[value] for value in hashes.tolist()])
    scale = np.abs(vectors).max(axis=0) / 127.0
    with arguments.out.open("wb") as file:
        levels = np.round(vectors / scale).astype(np.int8)
        np.savez_compressed(file, hash=hashes, vectors=levels, scale=scale.astype(np.float32))
    print(f"{len(hashes)} words, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

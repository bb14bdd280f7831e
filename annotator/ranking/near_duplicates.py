"""Near-duplicate documents by MinHash over 5-word shingles."""

from __future__ import annotations

import hashlib

import numpy as np
import rensa

from annotator.decontamination.ngrams import Words, ngrams

SHINGLE_WORDS = 5
BANDS, ROWS = 14, 8  # FineWeb's setting: pairs alike to 0.8 are found with probability 0.92
SIMILAR = 0.75
_SEED = 20240229


def signatures(words: Words, texts: int) -> np.ndarray:
    """MinHash signatures, u32 of shape (texts, 112); texts of fewer than 5 words get one from all their words."""
    shingles, at = ngrams(words, SHINGLE_WORDS)
    owner = words.text[at]
    counts = np.bincount(owner, minlength=texts)
    for text in np.flatnonzero(counts == 0):  # whole texts as their only shingle; an empty one is like no other
        own = words.hashes[words.text == text]
        digest = hashlib.blake2b(own.tobytes() or str(text).encode(), digest_size=8).digest()
        shingles = np.append(shingles, np.frombuffer(digest, dtype=np.uint64))
        owner = np.append(owner, np.int32(text))
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(texts + 1)).astype(np.uint64)
    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles[order], bounds, BANDS * ROWS, _SEED).to_rows()
    return np.array(rows, dtype=np.uint32).reshape(texts, BANDS * ROWS)


class KeptDocuments:
    """Documents taken so far; asked in order of preference, so that the best of a cluster is the one that stays."""

    def __init__(self) -> None:
        self._bands: list[dict[bytes, list[str]]] = [{} for _ in range(BANDS)]
        self._signatures: dict[str, np.ndarray] = {}

    def original_of(self, signature: np.ndarray) -> tuple[str, float] | None:
        """The most similar document taken before (Jaccard estimate of 0.75 or more), if there is one."""
        near = {doc_id for band, key in zip(self._bands, _keys(signature)) for doc_id in band.get(key, ())}
        found = [(float((self._signatures[doc_id] == signature).mean()), doc_id) for doc_id in sorted(near)]
        best = max(found, key=lambda pair: pair[0], default=(0.0, ""))
        return (best[1], best[0]) if best[0] >= SIMILAR else None

    def take(self, doc_id: str, signature: np.ndarray) -> None:
        """Remember a document."""
        self._signatures[doc_id] = signature
        for band, key in zip(self._bands, _keys(signature)):
            band.setdefault(key, []).append(doc_id)


def _keys(signature: np.ndarray) -> list[bytes]:
    return [signature[k * ROWS : (k + 1) * ROWS].tobytes() for k in range(BANDS)]

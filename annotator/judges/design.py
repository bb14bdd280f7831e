"""From features to the rows of numbers that the linear heads of a student weigh: blocks of a design matrix."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from annotator.judges import encoder, features, shape

SHAPE_COLUMNS = shape.MEASURES * shape.THRESHOLDS
WORDS_WEIGHT = 3.0  # of the words' block in the kernel against 1 for shape and meaning each; 1, 2 and 4 were tried


def slots(hashes: np.ndarray) -> np.ndarray:
    """hash -> position in `hashes`, or -1, for every possible hash."""
    table = np.full(1 << features.HASH_BITS, -1, dtype=np.int32)
    table[hashes] = np.arange(len(hashes), dtype=np.int32)
    return table


def blocks(batch: features.Batch, slot_of_hash: np.ndarray, idf: np.ndarray, centre: np.ndarray) -> list[sp.sparray]:
    """Texts x known hashes, thresholds of the shape (`unit_shape`) and dimensions of meaning.

    Their rows have length sqrt(WORDS_WEIGHT), 1 and 1.
    """
    words = unit_counts(batch, slot_of_hash, idf) * np.float32(WORDS_WEIGHT**0.5)
    return [words, unit_shape(batch), filled(unit(meaning(batch) - centre))]


def embedding_block(encoded: np.ndarray, centre: np.ndarray) -> sp.csr_array:
    """One block more: the centred embeddings, each of length sqrt(encoder.WEIGHT)."""
    return filled((unit(encoded - centre) * np.float32(encoder.WEIGHT**0.5)).astype(np.float32))


def counted(text: np.ndarray, column: np.ndarray, size: tuple[int, int]) -> sp.csc_array:
    """Texts x columns: how often each column occurs in each text. A column of -1 is not counted; `text` ascends.

    By column, which multiplies fastest: the weights of a word are then fetched once, not once a text.
    """
    known = np.flatnonzero(column >= 0)
    ends = np.append(0, np.cumsum(np.bincount(text.take(known), minlength=size[0])))
    ones = np.ones(len(known), dtype=np.float32)
    counts = sp.csr_array((ones, column.take(known), ends), shape=size).tocsc()
    counts.sum_duplicates()
    return counts


def filled(dense: np.ndarray) -> sp.csr_array:
    """A dense matrix as a sparse one that holds every entry."""
    rows, columns = dense.shape
    indices = np.tile(np.arange(columns, dtype=np.int32), rows)
    return sp.csr_array((dense.ravel(), indices, np.arange(rows + 1) * columns), shape=dense.shape)


_WORDS = Path(__file__).parent / "words.npz"


@lru_cache(maxsize=1)
def words_digest() -> str:
    """SHA-256 of the shared word vectors; a student holds for those it was trained with."""
    return hashlib.sha256(_WORDS.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def word_vectors() -> tuple[np.ndarray, np.ndarray]:
    """(hash -> row or -1, words x dimensions float32) of the shared word vectors."""
    with np.load(_WORDS, allow_pickle=False) as arrays:
        return slots(arrays["hash"]), np.multiply(arrays["vectors"], arrays["scale"], dtype=np.float32)


def meaning(batch: features.Batch) -> np.ndarray:
    """Texts x dimensions: the mean vector of the known words; zero where none is known."""
    slot_of_hash, vectors = word_vectors()
    counts = counted(batch.word_text, slot_of_hash.take(batch.words), (batch.texts, len(vectors)))
    words = np.bincount(counts.indices, weights=counts.data, minlength=batch.texts)
    return (counts @ vectors) / np.maximum(words, 1).astype(np.float32)[:, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row scaled to length 1 (or zero)."""
    return (vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)), 1e-9)).astype(np.float32)


def unit_counts(batch: features.Batch, slot_of_hash: np.ndarray, idf: np.ndarray) -> sp.csc_array:
    """Texts x known hashes: (1 + ln count) x idf, each row of length 1 (or empty)."""
    counts = counted(batch.gram_text, slot_of_hash.take(batch.gram_hash), (batch.texts, len(idf)))
    value = (1.0 + np.log(counts.data.astype(np.float64))) * np.repeat(idf, np.diff(counts.indptr))
    length = np.sqrt(np.bincount(counts.indices, weights=value * value, minlength=batch.texts))
    counts.data = (value / length.take(counts.indices)).astype(np.float32)
    return counts


def unit_shape(batch: features.Batch) -> sp.csr_array:
    """Texts x thresholds of measures: the highest that is reached; with `up_to_highest`, rows of length 1."""
    reached, level = np.flatnonzero(batch.shape), batch.shape.ravel()
    level = level.take(reached).astype(np.int32)
    length = np.sqrt(np.maximum(batch.shape.sum(axis=1, dtype=np.int64), 1))
    measures = (batch.shape > 0).sum(axis=1)
    column = (reached % shape.MEASURES).astype(np.int32) * shape.THRESHOLDS + level - 1
    value = np.repeat((1.0 / length).astype(np.float32), measures)
    ends = np.append(0, np.cumsum(measures))
    return sp.csr_array((value, column, ends), shape=(batch.texts, SHAPE_COLUMNS))


def up_to_highest() -> sp.csr_array:
    """Thresholds x thresholds: who reaches one has reached those below it as well.

    A head has weights for all that are reached; to label, these are added up once, not for each text.
    """
    below = np.tril(np.ones((shape.THRESHOLDS, shape.THRESHOLDS), dtype=np.float32))
    return sp.csr_array(sp.kron(sp.eye_array(shape.MEASURES, dtype=np.float32), below))

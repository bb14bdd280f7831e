"""Text to features for the student judge: hashed word 1-2-grams by place, and the shape of the text.

Only integers leave this module, so the same text gives the same features in any batch, on any machine and thread count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from annotator.judges import shape
from annotator.judges.tokens import LINE_END, code_points, mixed, pairs, split, split_texts

FEATURES_VERSION = "3"  # part of every card: a student loads only into the features that it was trained on
HASH_BITS = 22
MAX_CHARS = 4000

_HASH_MASK = np.uint32((1 << HASH_BITS) - 1)
_NO_KEY = np.uint32(0xFFFFFFFF)
_OPTIONS = "\nOptions:\n"
_REFERENCE = "\nReference answer: "
_PLACES = {"item": ("body", "last", "options", "target"), "document": ("body", "first")}
_SALTS = {"body": 0x0, "first": 0x9E3779B1, "last": 0x85EBCA77, "options": 0xC2B2AE3D, "target": 0x27D4EB2F}
_BLOCK = 64  # texts at a time: their arrays stay in the processor's cache, text and hash fit into 32 bits


def window(text: str) -> str:
    """At most MAX_CHARS characters of a long text: half from its head, a quarter each from its middle and tail."""
    if len(text) <= MAX_CHARS:
        return text
    quarter = MAX_CHARS // 4
    middle = len(text) // 2 - quarter // 2
    return f"{text[: 2 * quarter]}\n{text[middle : middle + quarter]}\n{text[-quarter:]}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Features of a batch of texts.

    count_text, count_hash, count: the (text, hash) pairs that occur, sorted by text, then hash, and how often.
    words: hash, free of place, of every word in reading order, with `word_text` and `word_line` (the line within the
        windowed body, or -1 elsewhere).
    shape: uint8 0/1 matrix, texts x measures x thresholds, see `shape.names`.
    bodies: the windowed text that the words come from.
    """

    count_text: np.ndarray
    count_hash: np.ndarray
    count: np.ndarray
    words: np.ndarray
    word_text: np.ndarray
    word_line: np.ndarray
    shape: np.ndarray
    bodies: list[str]

    @property
    def texts(self) -> int:
        return len(self.bodies)


def extract(texts: Sequence[str], kind: Literal["item", "document"], *, known: np.ndarray | None = None) -> Batch:
    """The features of texts: items as given by `item_text`, documents raw.

    known: whether each possible hash is to be counted (default: all); counting few of them is faster.
    """
    blocks = [_block(texts[at : at + _BLOCK], kind, at, known) for at in range(0, max(len(texts), 1), _BLOCK)]
    columns = [[getattr(block, field.name) for block in blocks] for field in fields(Batch)[:-1]]
    return Batch(*map(np.concatenate, columns), bodies=[body for block in blocks for body in block.bodies])


def word_hashes(text: str) -> np.ndarray:
    """The hash of each token of a text wherever it stands, as in `Batch.words`."""
    return (mixed(split_texts([text]).hashes) & _HASH_MASK).astype(np.int64)


def _block(texts: Sequence[str], kind: Literal["item", "document"], offset: int, known: np.ndarray | None) -> Batch:
    """The features of a few texts; text numbers begin at `offset`."""
    split_up = _item_parts if kind == "item" else _document_parts
    parts = [split_up(text) for text in texts]
    places = _PLACES[kind]
    points, begins = code_points([part for one in parts for part in one])
    tokens = split(points, begins)  # its texts are parts here
    salt = np.tile(np.array([_SALTS[place] for place in places], dtype=np.uint32), len(texts))[tokens.text]
    owner, line = tokens.text // len(places), np.cumsum(tokens.hashes == LINE_END)
    in_body = tokens.text % len(places) == 0
    is_word = tokens.hashes != LINE_END
    # Of each token, and of it and the one behind it.
    hashes, counted = np.zeros((len(owner), 2), dtype=np.uint32), np.zeros((len(owner), 2), dtype=bool)
    hashes[:, 0], counted[:, 0] = tokens.hashes ^ salt, is_word
    hashes[:-1, 1] = pairs(tokens.hashes) ^ salt[1:]
    counted[:-1, 1] = (tokens.text[:-1] == tokens.text[1:]) & is_word[:-1] & is_word[1:]
    keys, count = _counted(owner, mixed(hashes) & _HASH_MASK, counted, known)
    first = np.concatenate([[0], line])[np.searchsorted(owner, np.arange(len(texts)))]
    return Batch(
        count_text=(keys >> np.uint32(HASH_BITS)).astype(np.int64) + offset,
        count_hash=(keys & _HASH_MASK).astype(np.int64),
        count=count,
        words=(mixed(tokens.hashes[is_word]) & _HASH_MASK).astype(np.int64),
        word_text=owner[is_word] + offset,
        word_line=np.where(in_body, line - first[owner], -1)[is_word] if len(owner) else owner,
        shape=shape.measured(points, begins, tokens, parts),
        bodies=[one[0] for one in parts],
    )


def _counted(
    owner: np.ndarray, hashes: np.ndarray, counted: np.ndarray, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(text << HASH_BITS | hash) of every pair that occurs, ascending, and how often.

    owner: ascending, one a row of `hashes` and of `counted`, which says what of it counts.
    """
    if known is not None:
        counted = counted & known.take(hashes)
    kept = np.flatnonzero(counted)
    owner = owner[kept >> 1]
    keys = _sorted_by_text(owner, (owner.astype(np.uint32) << np.uint32(HASH_BITS)) | hashes.ravel()[kept])
    first = np.flatnonzero(np.append([True], keys[1:] != keys[:-1])[: len(keys)])
    return keys[first], np.diff(np.append(first, len(keys)))


def _sorted_by_text(owner: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Keys that are in order of their texts, sorted: many short rows take a fifth of the time of one long one."""
    lengths = np.bincount(owner)
    rows = np.full((len(lengths), lengths.max(initial=0)), _NO_KEY)
    rows[owner, np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]] = keys
    rows.sort(axis=1)
    return rows[rows != _NO_KEY]


def _item_parts(text: str) -> tuple[str, ...]:
    body, _, target = text.rpartition(_REFERENCE) if _REFERENCE in text else (text, "", "")
    body, _, options = body.partition(_OPTIONS) if _OPTIONS in body else (body, "", "")
    body = window(body)
    last = body.rstrip().rpartition("\n")[2]
    return body, last[-300:], options[:1500], target[:200]


def _document_parts(text: str) -> tuple[str, ...]:
    body = window(text)
    return body, body.lstrip().partition("\n")[0][:200]

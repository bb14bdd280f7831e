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

    gram_text, gram_hash: every word and pair of words that is to be counted, in reading order.
    gram_line: the line of the windowed body in which a word stands; -1 of pairs, and elsewhere.
    word_text, words: of every word, its hash free of place, in reading order.
    shape: uint8, texts x measures: how many thresholds each reaches, see `annotator.judges.shape`.
    bodies: the windowed text that the words come from.
    """

    gram_text: np.ndarray
    gram_hash: np.ndarray
    gram_line: np.ndarray
    word_text: np.ndarray
    words: np.ndarray
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
    salt = np.tile(np.array([_SALTS[place] for place in places], dtype=np.uint32), len(texts)).take(tokens.text)
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), len(places)).take(tokens.text)
    in_body = np.tile(np.array(places) == "body", len(texts)).take(tokens.text)
    line = np.cumsum(tokens.hashes == LINE_END, dtype=np.int32)
    is_word = tokens.hashes != LINE_END
    # Of each token, and of it and the one behind it.
    hashes, counted = np.zeros((len(owner), 2), dtype=np.uint32), np.zeros((len(owner), 2), dtype=bool)
    hashes[:, 0], counted[:, 0] = tokens.hashes ^ salt, is_word
    hashes[:-1, 1] = pairs(tokens.hashes) ^ salt[1:]
    counted[:-1, 1] = (tokens.text[:-1] == tokens.text[1:]) & is_word[:-1] & is_word[1:]
    hashes = mixed(hashes) & _HASH_MASK
    if known is not None:
        counted &= known.take(hashes)
    kept = np.flatnonzero(counted)
    begin = np.append(np.int32(0), line)[np.searchsorted(owner, np.arange(len(texts)))]
    line = np.where(in_body, line - begin.take(owner), np.int32(-1))
    token, word = kept >> 1, np.flatnonzero(is_word)
    return Batch(
        gram_text=owner.take(token) + np.int32(offset),
        gram_hash=hashes.ravel().take(kept),
        gram_line=np.where(kept & 1, np.int32(-1), line.take(token)),
        word_text=owner.take(word) + np.int32(offset),
        words=mixed(tokens.hashes.take(word)) & _HASH_MASK,
        shape=shape.measured(points, begins, tokens, parts),
        bodies=[one[0] for one in parts],
    )


def _item_parts(text: str) -> tuple[str, ...]:
    body, _, target = text.rpartition(_REFERENCE) if _REFERENCE in text else (text, "", "")
    body, _, options = body.partition(_OPTIONS) if _OPTIONS in body else (body, "", "")
    body = window(body)
    last = body.rstrip().rpartition("\n")[2]
    return body, last[-300:], options[:1500], target[:200]


def _document_parts(text: str) -> tuple[str, ...]:
    body = window(text)
    return body, body.lstrip().partition("\n")[0][:200]

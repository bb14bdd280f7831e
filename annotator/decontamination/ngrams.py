"""Texts as sequences of word hashes, insensitive to case, spacing, punctuation and LaTeX markup; numpy throughout.

A word is a run of letters or of digits; each Chinese, Japanese or Korean character is a word of its own. Words are
hashed by one prefix sum over the bytes of many texts at once (a polynomial modulo 2**64 whose base is odd, hence
invertible), which costs a few nanoseconds a byte; hashing words one by one in Python costs a hundred times that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # splitmix64 (Steele et al. 2014)
_SEPARATOR, _LETTER, _DIGIT = 0, 1, 2
_APOSTROPHE, _COMMA, _BACKSLASH, _LINE_END = 0x27, 0x2C, 0x5C, 0x0A
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"  # soft hyphen, zero-width spaces and joiners, byte order mark
_EAST_ASIAN = (0xE3, 0xED)  # lead bytes of kana, ideographs and Hangul


def _classes() -> np.ndarray:
    table = np.zeros(256, dtype=np.uint8)
    table[128:] = _LETTER
    for first, last in (("a", "z"), ("A", "Z")):
        table[ord(first) : ord(last) + 1] = _LETTER
    table[ord("0") : ord("9") + 1] = _DIGIT
    return table


def _byte_values() -> np.ndarray:
    values = np.random.Generator(np.random.PCG64(20240229)).integers(1, 1 << 63, 256, dtype=np.uint64)
    values[ord("A") : ord("Z") + 1] = values[ord("a") : ord("z") + 1]
    return values


_CLASS, _VALUE = _classes(), _byte_values()
_powers = np.ones(1, dtype=np.uint64)
_inverses = np.ones(1, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts, in order.

    hashes: u64, one a word. text: i32, which text the word stands in. start, end: i64, where the word stands in the
    folded text (see `fold`), as UTF-8 bytes counted from the text's beginning. line: i32, how many line ends stand
    before it in the batch.
    """

    hashes: np.ndarray
    text: np.ndarray
    start: np.ndarray
    end: np.ndarray
    line: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


def fold(text: str) -> str:
    """Compatibility forms made plain, invisible characters taken out, and case folded.

    ASCII text is returned as it is; its case is folded later.
    """
    if text.isascii():
        return text
    for character in _INVISIBLE:
        if character in text:  # a search for one character costs next to nothing
            text = text.replace(character, "")
    return unicodedata.normalize("NFKC", text).casefold()


def split_words(texts: Sequence[str]) -> Words:
    """The words of all texts. Best called with about a megabyte of text at a time.

    Apostrophes inside words and commas inside numbers are closed up; names of LaTeX commands are left out.
    """
    folded = [fold(text).encode("utf-8", "replace") for text in texts]
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    begins = np.concatenate(([0], np.cumsum(lengths + 1)))
    raw = np.frombuffer(b"\n".join(folded) + b"\n", dtype=np.uint8)
    line_ends = np.flatnonzero(raw == _LINE_END)
    kinds = _CLASS[raw]
    if raw.max(initial=0) >= 128:
        _separate(raw, kinds)
    where = _kept(raw, kinds)
    if where is not None:
        raw, kinds = raw[where], kinds[where]
    first, last = _runs(raw, kinds)
    hashes = _word_hashes(raw, first, last)
    start, end = (first, last) if where is None else (where[first], where[last - 1] + 1)
    counts = np.diff(np.searchsorted(start, begins))
    text = np.repeat(np.arange(len(folded), dtype=np.int32), counts)
    upto = np.concatenate(([0], np.searchsorted(start, line_ends), [len(start)]))
    line = np.repeat(np.arange(len(line_ends) + 1, dtype=np.int32), np.diff(upto))
    return Words(hashes, text, start - begins[text], end - begins[text], line)


def ngrams(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every run of `n` words inside one text, and the index of its first word."""
    if len(words) < n:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    count = len(words) - n + 1
    _grow(n)
    total = _run_sums(words.hashes, n)
    inside = words.text[:count] == words.text[n - 1 :]
    at = np.flatnonzero(inside)
    return _mixed(total[at]), at


def _run_sums(hashes: np.ndarray, n: int) -> np.ndarray:
    """The polynomial of every run of `n` hashes, put together from halves: fewer passes than word by word."""
    if n == 1:
        return hashes
    half = n // 2
    sums = _run_sums(hashes, half)
    total = sums[: len(sums) - half] + sums[half:] * _powers[half]
    if n % 2:
        total = total[:-1] + hashes[n - 1 :] * _powers[n - 1]
    return total


def _separate(raw: np.ndarray, kinds: np.ndarray) -> None:
    """Non-ASCII punctuation parts words: U+0080-U+00BF, U+2000-U+2FFF, U+3000-U+303F."""
    latin = np.flatnonzero(raw[:-1] == 0xC2)
    wide = np.flatnonzero((raw[:-2] == 0xE2) | ((raw[:-2] == 0xE3) & (raw[1:-1] == 0x80)))
    for at, width in ((latin, 2), (wide, 3)):
        for k in range(width):
            kinds[at + k] = _SEPARATOR


def _kept(raw: np.ndarray, kinds: np.ndarray) -> np.ndarray | None:
    """Positions that remain when commas inside numbers and apostrophes inside words are closed up; None for all."""
    inner = kinds[:-2]
    comma = (raw[1:-1] == _COMMA) & (inner == _DIGIT) & (kinds[2:] == _DIGIT)
    apostrophe = (raw[1:-1] == _APOSTROPHE) & (inner == _LETTER) & (kinds[2:] == _LETTER)
    closed = comma | apostrophe
    if not closed.any():
        return None
    keep = np.ones(len(raw), dtype=bool)
    keep[1:-1] = ~closed
    return np.flatnonzero(keep)


def _runs(raw: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First byte and end of each word."""
    before = np.empty_like(kinds)
    before[0], before[1:] = _SEPARATOR, kinds[:-1]
    change = kinds != before
    if raw.max(initial=0) >= _EAST_ASIAN[0]:
        lead = np.flatnonzero((raw >= _EAST_ASIAN[0]) & (raw <= _EAST_ASIAN[1]) & (kinds == _LETTER))
        change[lead] = True
        change[np.minimum(lead + 3, len(raw) - 1)] = True
    edges = np.flatnonzero(change)
    kind = kinds[edges]
    ends = np.append(edges[1:], len(raw))
    word = kind != _SEPARATOR
    word &= (kind != _LETTER) | (raw[edges - 1] != _BACKSLASH) | (edges == 0)
    return edges[word], ends[word]


def _word_hashes(raw: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    _grow(len(raw) + 1)
    sums = np.zeros(len(raw) + 1, dtype=np.uint64)
    np.cumsum(_VALUE[raw] * _powers[: len(raw)], out=sums[1:])
    return _mixed((sums[last] - sums[first]) * _inverses[first])


def _mixed(value: np.ndarray) -> np.ndarray:
    value = value ^ (value >> np.uint64(30))
    value *= _MIX_1
    value ^= value >> np.uint64(27)
    value *= _MIX_2
    value ^= value >> np.uint64(31)
    return value


def _grow(length: int) -> None:
    """Keep tables of the powers of the base and of its inverse at least `length` long."""
    global _powers, _inverses
    if len(_powers) >= length:
        return
    size = 1 << (length - 1).bit_length()
    _powers, _inverses = _power_table(_BASE, size), _power_table(_INVERSE, size)


def _power_table(base: int, size: int) -> np.ndarray:
    table = np.full(size, np.uint64(base & ((1 << 64) - 1)), dtype=np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)

"""Texts as hashed words and signs; numpy over the characters of many texts at once, a few nanoseconds each.

A token is a run of letters (with a backslash before it, as LaTeX commands have), a run of digits, a run of underscores,
one sign, one Chinese or Japanese character, or one line end. Letters are hashed without regard to case, a number by its
length alone, since its digits say nothing about the task. A character beyond the Basic Multilingual Plane is a sign.

The hash is a polynomial modulo 2**32 over the characters, taken from one prefix sum: its base is odd, hence invertible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_GAP, _SIGN, _IDEOGRAPH, _LINE_END, _BACKSLASH, _LETTER, _DIGIT, _UNDERSCORE = range(8)
_RUNS = _LETTER  # this class and those above join into runs
_PLANE = 0x10000
_BASE = 0x9E3779B1
_INVERSE = pow(_BASE, -1, 1 << 32)
_PAIR = np.uint32(0x01000193)
_LONGEST_NUMBER = 5
LINE_END = np.uint32(1)  # the hash of a line end


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of some texts, in reading order.

    hashes: uint32, one a token, LINE_END for a line end. text: int64, which text the token stands in. length: int64,
    its characters.
    """

    hashes: np.ndarray
    text: np.ndarray
    length: np.ndarray


def code_points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The characters of all texts with a NUL after each text (uint32), and where each text begins (int64)."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    begins = np.concatenate(([0], np.cumsum(lengths + 1)))[:-1]
    joined = "\x00".join(texts) + "\x00" if len(texts) else ""
    return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32), begins


def split(points: np.ndarray, begins: np.ndarray) -> Tokens:
    """The tokens of texts as `code_points` gives them. Best called with a few hundred kilobytes of text at a time."""
    low = points if points.max(initial=0) < _PLANE else np.where(points < _PLANE, points, _PLANE)
    kinds = _CLASS.take(low)
    before = np.empty_like(kinds)
    before[:1], before[1:] = _GAP, kinds[:-1]
    starts = (kinds != before) | (kinds < _RUNS)
    starts &= (kinds != _GAP) & ~((kinds == _LETTER) & (before == _BACKSLASH))
    edges = np.flatnonzero(starts | ((kinds == _GAP) & (before != _GAP)))  # a token ends where another or a gap begins
    # By places and not by masks, here and elsewhere: a processor cannot guess a mask, which makes it five times slower.
    places = np.flatnonzero(starts.take(edges))
    first, last = edges.take(places), np.append(edges[1:], len(points)).take(places)
    per_text = np.diff(np.append(np.searchsorted(first, begins), len(first)))
    text = np.repeat(np.arange(len(begins)), per_text)
    return Tokens(_hashes(points, low, kinds, first, last), text, last - first)


def split_texts(texts: Sequence[str]) -> Tokens:
    """The tokens of texts."""
    return split(*code_points(texts))


def pairs(hashes: np.ndarray) -> np.ndarray:
    """The hash of each token and the one behind it, taken together."""
    return hashes[:-1] * _PAIR ^ hashes[1:]


def mixed(value: np.ndarray) -> np.ndarray:
    """Each 32-bit value with its bits well mixed (the finaliser of MurmurHash3)."""
    value = value ^ (value >> np.uint32(16))
    value *= np.uint32(0x85EBCA6B)
    value ^= value >> np.uint32(13)
    value *= np.uint32(0xC2B2AE35)
    value ^= value >> np.uint32(16)
    return value


def _hashes(points: np.ndarray, low: np.ndarray, kinds: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    _grow(len(points) + 1)
    value = _VALUE.take(low)
    if low is not points:
        beyond = np.flatnonzero(points >= _PLANE)
        value[beyond] = mixed(points[beyond])
    sums = np.zeros(len(points) + 1, dtype=np.uint32)
    np.cumsum(value * _powers[: len(points)], dtype=np.uint32, out=sums[1:])
    hashes = mixed((sums[last] - sums[first]) * _inverses[first])
    kind = kinds[first]
    number = np.flatnonzero(kind == _DIGIT)
    hashes[number] = _NUMBERS[np.minimum((last - first)[number], _LONGEST_NUMBER)]
    hashes[hashes == LINE_END] += np.uint32(1)  # a few words have that hash: no line ends in them
    hashes[kind == _LINE_END] = LINE_END
    return hashes


def _classes() -> np.ndarray:
    """The class of each character of the Basic Multilingual Plane, and of one that stands for all beyond it."""
    table = np.full(_PLANE + 1, _SIGN, dtype=np.uint8)
    for point in range(_PLANE):
        character = chr(point)
        if character.isalpha():
            table[point] = _LETTER
        elif character.isnumeric():
            table[point] = _DIGIT
        elif character.isspace() or point == 0:
            table[point] = _GAP
    table[0x3040:0x3100] = table[0x4E00:0xA000] = _IDEOGRAPH
    table[ord("\n")], table[ord("\\")], table[ord("_")] = _LINE_END, _BACKSLASH, _UNDERSCORE
    return table


def _values() -> np.ndarray:
    """A number for each character, the same for both cases of a letter."""
    lower = [ord(small) if len(small := chr(point).lower()) == 1 else point for point in range(_PLANE + 1)]
    return mixed(np.array(lower, dtype=np.uint32) + np.uint32(1))


_CLASS, _VALUE = _classes(), _values()
_NUMBERS = mixed(np.arange(_LONGEST_NUMBER + 1, dtype=np.uint32) + np.uint32(0x51ED270B))
_powers = np.ones(1, dtype=np.uint32)
_inverses = np.ones(1, dtype=np.uint32)


def _grow(length: int) -> None:
    """Keep tables of the powers of the base and of its inverse at least `length` long."""
    global _powers, _inverses
    if len(_powers) < length:
        size = 1 << (length - 1).bit_length()
        _powers, _inverses = _power_table(_BASE, size), _power_table(_INVERSE, size)


def _power_table(base: int, size: int) -> np.ndarray:
    table = np.full(size, base, dtype=np.uint32)
    table[0] = 1
    return np.multiply.accumulate(table, dtype=np.uint32)

"""The shape of a text: rates and forms that carry over to sources with other words.

Each measure becomes a level, how many of THRESHOLDS it reaches; a head has a weight for each threshold, so it can bend.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from annotator.judges.tokens import Tokens, pairs, split_texts

_PUNCTUATION = "?!.,;:'\"()[]{}<>|#*`=+-/\\$%&@^_~"
_LINE_STARTS = "-*#>|$(.:+"
_ANSWER_FORMS = (
    ("letter", re.compile(r"\(?[A-Z]\)?")),
    ("letters", re.compile(r"[A-J]{2,}|\(?[A-Z]\)?( ?, ?\(?[A-Z]\)?)+")),
    ("verdict", re.compile(r"(?i)(yes|no|true|false|valid|invalid|plausible|implausible|unknown|proved|disproved)\.?")),
    ("integer", re.compile(r"[-+$\\ ]*\d[\d,]*")),
    ("quantity", re.compile(r"[-+$\\ ]*[\d,]*\.?\d+ ?(%|\\%|[a-zA-Z]{1,12}\.?)?|\\d?frac\{?\d+\}?\{?\d+\}?|-?\d+/\d+")),
    ("literal", re.compile(r"(?s)[\[{('\"].*[\]})'\"]")),
    ("formula", re.compile(r"(?s)(?=.*[\\^=+_]).*")),
    ("code", re.compile(r"(?s).*(\n {2,}|return |def |;\n).*")),
    ("symbols", re.compile(r"[\W_]+")),
    ("words_apart", re.compile(r"\w+( \w+){3,}")),
    ("word", re.compile(r"\w+")),
    ("list", re.compile(r"[^,\n]{1,40}(, ?[^,\n]{1,40})+")),
    ("phrase", re.compile(r".{1,60}")),
)
# One token or two that follow each other; each is counted in the body.
_MARKS = (
    "___", "def", ">>", "assert", "(a", "a.", "options", "task", "``", "//", "</", "http", "https", "\\label",
    "\\begin", "proof", "theorem", "question", "answer", ":\n", "\n\n", "§", "\u201c", "--", "you", "your", "she", "he",
    "i", "we", "must", "should", "can", "was", "is", "that", "because", "if", "return", "let",
)  # fmt: skip
_MEASURES = (
    "chars", "words_length", "lines", "line_chars", "digits", "upper", "letters", "spaces", "beyond_ascii",
    *(f"sign {sign}" for sign in _PUNCTUATION), *(f"line {start}" for start in _LINE_STARTS), "line digit",
    "line upper", "line lower", "line indented", "line empty", *(f"mark {mark!r}" for mark in _MARKS), "choices",
    "choice_chars", "target_chars", "target none", *(f"target {name}" for name, _ in _ANSWER_FORMS),
)  # fmt: skip
MEASURES = len(_MEASURES)
THRESHOLDS = 7  # 0.5, 1.5 ... 6.5 on log2(1 + per-mille rate or plain count)


def measured(points: np.ndarray, begins: np.ndarray, tokens: Tokens, parts: Sequence[tuple[str, ...]]) -> np.ndarray:
    """The shape of some texts.

    Args:
        points, begins, tokens: as `annotator.judges.tokens` gives them for all parts of all texts, in order.
        parts: the parts of each text: the body first; of items the options and the reference answer last.

    Returns:
        uint8, texts x MEASURES: the levels, from 0 to THRESHOLDS.
    """
    places = len(parts[0]) if parts else 1
    marks = _marks(tokens, len(parts), places)
    return _levels(np.hstack([_characters(points, begins, places), marks, _answer_measures(parts)]))


def _characters(points: np.ndarray, begins: np.ndarray, places: int) -> np.ndarray:
    """Texts x the measures of the body's characters and of the characters that its lines begin with."""
    cell = np.repeat(np.arange(len(begins)) * _KINDS, np.diff(np.append(begins, len(points))))
    cell += np.minimum(points, _KINDS - 1)
    characters = _histogram(cell, len(begins))[::places]
    characters[:, 0] -= 1  # the NUL after each text
    opening = np.concatenate([begins, np.flatnonzero(points == _NEWLINE) + 1])
    starts = cell[opening]
    starts[points[opening] == _NEWLINE] -= _NEWLINE  # an empty line begins with nothing
    starts = _histogram(starts, len(begins))[::places]
    chars, lines = characters.sum(axis=1), starts.sum(axis=1)
    letters = characters[:, _LETTERS].sum(axis=1)
    counts = (characters[:, 48:58].sum(axis=1), characters[:, 65:91].sum(axis=1), letters)
    rates = np.column_stack([*counts, characters[:, 32], characters[:, -1], characters[:, _SIGNS]])
    of_lines = [starts[:, a:b].sum(axis=1) for a, b in ((48, 58), (65, 91), (97, 123), (9, 33), (0, 1))]
    return np.column_stack([
        chars / 4, 20.0 * letters / (characters[:, 32] + 1), lines, chars / np.maximum(lines, 1),
        rates * (1000.0 / np.maximum(chars, 1))[:, None],
        np.column_stack([starts[:, _STARTS], *of_lines]) * (1000.0 / np.maximum(lines, 1))[:, None],
    ])  # fmt: skip


_NEWLINE = ord("\n")
_SIGNS = np.array([ord(sign) for sign in _PUNCTUATION])
_STARTS = np.array([ord(start) for start in _LINE_STARTS])
_LETTERS = np.r_[65:91, 97:123]


_KINDS = 129  # the ASCII characters, and one for all others


def _histogram(cell: np.ndarray, parts: int) -> np.ndarray:
    """Parts x _KINDS: how often each kind of character occurs in each part; `cell` is part * _KINDS + kind."""
    return np.bincount(cell, minlength=parts * _KINDS).reshape(parts, _KINDS)


def _mark_hashes() -> tuple[np.ndarray, np.ndarray]:
    """(mark -> its hash, whether it is a pair of tokens)."""
    found = [split_texts([mark]).hashes for mark in _MARKS]
    hashes = [pairs(tokens)[0] if len(tokens) == 2 else tokens[0] for tokens in found]
    return np.array(hashes, dtype=np.uint32), np.array([len(tokens) == 2 for tokens in found])


_MARK_HASHES, _MARK_IS_PAIR = _mark_hashes()
_SLOTS = 1 << 16


def _mark_slots(of_pairs: bool) -> np.ndarray:
    """The low bits of a hash -> mark, or -1: one look-up in a small table tells almost all tokens from every mark."""
    table = np.full(_SLOTS, -1, dtype=np.int16)
    chosen = np.flatnonzero(_MARK_IS_PAIR if of_pairs else ~_MARK_IS_PAIR)
    table[_MARK_HASHES[chosen] & np.uint32(_SLOTS - 1)] = chosen
    return table


_WORD_MARKS, _PAIR_MARKS = _mark_slots(of_pairs=False), _mark_slots(of_pairs=True)


def _marks(tokens: Tokens, texts: int, places: int) -> np.ndarray:
    """Texts x marks: four times how often each occurs in the body."""
    in_body = tokens.text % places == 0
    pair_in_body = in_body[1:] & (tokens.text[1:] == tokens.text[:-1])
    found = []
    for slots, values, inside in (
        (_WORD_MARKS, tokens.hashes, in_body),
        (_PAIR_MARKS, pairs(tokens.hashes), pair_in_body),
    ):
        mark = slots.take(values & np.uint32(_SLOTS - 1))
        at = np.flatnonzero((mark >= 0) & inside)
        at = at[_MARK_HASHES[mark[at]] == values[at]]
        found.append(tokens.text[at] // places * len(_MARKS) + mark[at])
    counts = np.bincount(np.concatenate(found), minlength=texts * len(_MARKS))
    return 4.0 * counts.reshape(texts, len(_MARKS))


def _answer_measures(parts: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Texts x the measures of the options and of the reference answer, which only items have."""
    rows = [_measure_answer(*one[-2:]) if len(one) > 2 else _NO_ANSWER for one in parts]
    return np.array(rows, dtype=np.float64).reshape(len(parts), len(_NO_ANSWER))


def _measure_answer(options: str, target: str) -> list[float]:
    choices = options.count("\n") + 1 if options else 0
    target = target.strip()
    found = ""
    if target:
        found = next((name for name, form in _ANSWER_FORMS if form.fullmatch(target)), "sentence")
    values = [4.0 * choices, len(options) / max(choices, 1), float(len(target)), 127.0 * (not target)]
    return values + [127.0 * (found == name) for name, _ in _ANSWER_FORMS]


_NO_ANSWER = _measure_answer("", "")


def _levels(raw: np.ndarray) -> np.ndarray:
    """How many thresholds are reached. Rounded first: machines differ in log2's last bit."""
    level = np.round(np.log2(1.0 + raw), 6)
    return np.minimum(np.floor(level + 0.5), THRESHOLDS).astype(np.uint8)

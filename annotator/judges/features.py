"""Text to features for the student judge: hashed word 1-2-grams by place, and the shape of the text.

Only integers leave this module, so the same text gives the same features in any batch, on any machine and thread count.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEATURES_VERSION = "2"  # part of every card: a student loads only into the features that it was trained on
HASH_BITS = 22
MAX_CHARS = 4000

_HASH_MASK = (1 << HASH_BITS) - 1
_OPTIONS = "\nOptions:\n"
_REFERENCE = "\nReference answer: "
# Chinese and Japanese are written without spaces: one character is a word. Line ends are kept, they find the evidence.
_TOKEN = re.compile(r"\n|[\u3040-\u30ff\u4e00-\u9fff]|\\?[^\W\d_]+|\d+|[^\w\s]|_+")
_ASCII_TOKEN = re.compile(
    r"\\?[a-z]+|[^\w\s\x1c-\x1f]|\d+|\n|_+", re.ASCII
)  # the same tokens of ASCII text, a third faster
_LINE_END = 1
_PLACES = {"body": 0x0, "first": 0x9E3779B1, "last": 0x85EBCA77, "options": 0xC2B2AE3D, "target": 0x27D4EB2F}
_PAIR = 0x01000193


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
    shape: uint8 0/1 matrix, texts x measures x thresholds, see `shape_names`.
    bodies: the windowed text that the words come from.
    """

    texts: int
    count_text: np.ndarray
    count_hash: np.ndarray
    count: np.ndarray
    words: np.ndarray
    word_text: np.ndarray
    word_line: np.ndarray
    shape: np.ndarray
    bodies: list[str]


def extract(texts: Sequence[str], kind: Literal["item", "document"]) -> Batch:
    """The features of texts: items as given by `item_text`, documents raw."""
    flat: list[int] = []
    lengths: list[int] = []
    salts: list[int] = []
    bodies, measures = [], []
    for text in texts:
        parts = _item_parts(text) if kind == "item" else _document_parts(text)
        bodies.append(parts["body"])
        measures.append(_measure(parts))
        for place, salt in _PLACES.items():
            before = len(flat)
            if parts.get(place):
                flat.extend(map(_HASHES.__getitem__, tokens(parts[place])))
            lengths.append(len(flat) - before)
            salts.append(salt)
    _HASHES.shrink()
    token = np.array(flat, dtype=np.uint32)
    segment = np.repeat(np.arange(len(lengths)), lengths)
    return _batch(token, segment, np.array(salts, dtype=np.uint32), bodies, np.array(measures, dtype=np.float64))


def tokens(text: str) -> list[str]:
    """The words and signs of a text, lower-cased; line ends are tokens too."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text.lower())


def plain_hash(token: str) -> int:
    """The hash of a word wherever it stands, as in `Batch.words`."""
    return int(_mix(np.array([_HASHES[token]], dtype=np.uint32))[0])


def _batch(token: np.ndarray, segment: np.ndarray, salts: np.ndarray, bodies: list[str], raw: np.ndarray) -> Batch:
    salt = salts[segment] if len(token) else token
    single = _mix(token ^ salt)
    pair = _mix((token[:-1] * np.uint32(_PAIR)) ^ token[1:] ^ salt[1:]) if len(token) else token
    is_word = token != _LINE_END
    is_pair = (segment[:-1] == segment[1:]) & is_word[:-1] & is_word[1:] if len(token) else is_word
    places = len(_PLACES)
    owner = np.concatenate([segment[is_word] // places, segment[1:][is_pair] // places]).astype(np.int64)
    hashes = np.concatenate([single[is_word], pair[is_pair]]).astype(np.int64)
    keys, count = np.unique((owner << HASH_BITS) | hashes, return_counts=True)
    word_segment = segment[is_word]
    lines = np.cumsum(token == _LINE_END)
    first = np.concatenate([[0], lines])[np.searchsorted(segment, np.arange(len(bodies)) * places)]
    word_text = (word_segment // places).astype(np.int64)
    word_line = np.where(word_segment % places == 0, lines[is_word] - first[word_text], -1) if len(token) else word_text
    return Batch(
        texts=len(bodies),
        count_text=keys >> HASH_BITS,
        count_hash=keys & _HASH_MASK,
        count=count,
        words=_mix(token[is_word]).astype(np.int64),
        word_text=word_text,
        word_line=word_line,
        shape=_thermometer(raw.reshape(len(bodies), len(_MEASURES))),
        bodies=bodies,
    )


def _mix(value: np.ndarray) -> np.ndarray:
    """HASH_BITS well-mixed bits of each 32-bit value (the finaliser of MurmurHash3)."""
    value = value ^ (value >> np.uint32(16))
    value = value * np.uint32(0x85EBCA6B)
    value = value ^ (value >> np.uint32(13))
    value = value * np.uint32(0xC2B2AE35)
    return (value ^ (value >> np.uint32(16))) & np.uint32(_HASH_MASK)


class _TokenHashes(dict):
    """token -> CRC-32; a number is hashed by its length, since its digits say nothing about the task."""

    def __missing__(self, token: str) -> int:
        if token == "\n":
            value = _LINE_END
        else:
            named = f"\x00{min(len(token), 5)}" if token.isdigit() else token
            value = zlib.crc32(named.encode("utf-8", "surrogatepass"))
        self[token] = value
        return value

    def shrink(self) -> None:
        if len(self) > 500_000:  # about 60 MB; a corpus has no end of misspellings
            self.clear()


_HASHES = _TokenHashes()


def _item_parts(text: str) -> dict[str, str]:
    body, _, target = text.rpartition(_REFERENCE) if _REFERENCE in text else (text, "", "")
    body, _, options = body.partition(_OPTIONS) if _OPTIONS in body else (body, "", "")
    body = window(body)
    last = body.rstrip().rpartition("\n")[2]
    return {"body": body, "last": last[-300:], "options": options[:1500], "target": target[:200]}


def _document_parts(text: str) -> dict[str, str]:
    body = window(text)
    return {"body": body, "first": body.lstrip().partition("\n")[0][:200]}


# ---- shape: rates and forms that carry over to sources with other words ----

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
_MARKS = (
    ("blank", "___"), ("def", "def "), ("prompt", ">>>"), ("assert", "assert "), ("option_a", "(A)"),
    ("option_a_dot", "A."), ("options", "ptions:"), ("task", "Task"), ("fence", "```"), ("comment", "//"),
    ("tag", "</"), ("link", "http"),
    ("table", " | "), ("label", "\\label"), ("begin", "\\begin"), ("proof", "roof"), ("theorem", "heorem"),
    ("title", "TH "), ("question", "Question"), ("answer", "Answer"), ("speaker", ":\n"), ("paragraph", "\n\n"),
    ("indent", "\n    "),
    ("bullet", "\n- "), ("star", "\n* "), ("number", "\n1. "), ("section", "§"), ("quote", "\u201c"), ("dash", " -- "),
    ("you", " you"), ("she", " she "), ("he", " he "), ("i", " I "), ("we", " we "), ("must", " must "),
    ("should", " should "),
)  # fmt: skip
_MEASURES = (
    "chars", "words_length", "lines", "line_chars", "digits", "upper", "letters", "spaces", "beyond_ascii",
    *(f"sign {sign}" for sign in _PUNCTUATION), *(f"line {start}" for start in _LINE_STARTS), "line digit",
    "line upper", "line lower", "line indented", "line empty", *(f"mark {name}" for name, _ in _MARKS), "choices",
    "choice_chars",
    "target_chars", "target none", *(f"target {name}" for name, _ in _ANSWER_FORMS),
)  # fmt: skip
_THRESHOLDS = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])  # on log2(1 + per-mille rate or plain count)


def shape_names() -> list[str]:
    """The names of the columns of `Batch.shape`."""
    return [f"{measure} >= {threshold}" for measure in _MEASURES for threshold in _THRESHOLDS]


def _measure(parts: dict[str, str]) -> list[float]:
    body = parts["body"]
    raw = np.frombuffer(body.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    histogram = np.bincount(raw, minlength=256)
    chars = max(len(body), 1)
    lines = body.split("\n")
    starts = "".join([line[:1] or "\x00" for line in lines])
    per_char, per_line = 1000.0 / chars, 1000.0 / len(lines)
    letters = int(histogram[_LETTERS].sum())
    digits = int(histogram[48:58].sum())
    upper = int(histogram[65:91].sum())
    spaces = int(histogram[32])
    beyond = int(histogram[128:].sum())
    values = [float(chars) / 4, 20.0 * letters / (spaces + 1), float(len(lines)), chars / len(lines)]
    values += [n * per_char for n in (digits, upper, letters, spaces, beyond)]
    values += (histogram[_SIGNS] * per_char).tolist()
    values += [starts.count(start) * per_line for start in _LINE_STARTS]
    first = np.bincount(np.frombuffer(starts.encode("utf-8", "surrogatepass"), dtype=np.uint8), minlength=128)
    values += [int(first[a:b].sum()) * per_line for a, b in ((48, 58), (65, 91), (97, 123), (9, 33), (0, 1))]
    values += [4.0 * body.count(mark) for _, mark in _MARKS]
    return values + _measure_answer(parts.get("options", ""), parts.get("target", ""))


_SIGNS = np.frombuffer(_PUNCTUATION.encode(), dtype=np.uint8).astype(np.int64)
_LETTERS = np.r_[65:91, 97:123]


def _measure_answer(options: str, target: str) -> list[float]:
    choices = options.count("\n") + 1 if options else 0
    target = target.strip()
    found = ""
    if target:
        found = next((name for name, form in _ANSWER_FORMS if form.fullmatch(target)), "sentence")
    values = [4.0 * choices, len(options) / max(choices, 1), float(len(target)), 127.0 * (not target)]
    return values + [127.0 * (found == name) for name, _ in _ANSWER_FORMS]


def _thermometer(raw: np.ndarray) -> np.ndarray:
    """0/1 per threshold reached, so that a linear head can bend. Rounded first: machines differ in log2's last bit."""
    level = np.round(np.log2(1.0 + raw), 6)
    return (level[:, :, None] >= _THRESHOLDS).reshape(len(raw), level.shape[1] * len(_THRESHOLDS)).astype(np.uint8)

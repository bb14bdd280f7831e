"""Find the answers in a model's output and compare them with the gold one, in the same way for every run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

AnswerKind = Literal["choice", "number", "text"]

END_MARKERS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "[EOS]",
)
_CHOICE = re.compile(r"\(?([A-Z])\)?\.?")
_LETTER = re.compile(r"(?<![A-Za-z'])\(?([A-Z])\)?(?![A-Za-z'])")
_IN_PARENTHESES = re.compile(r"\(([A-Z])\)")
_FIRST_LETTER = re.compile(r"\(?([A-Z])\)?(?=[\s.,:]|$)")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?:\s*/\s*\d+)?|[-+]?\.\d+")
_STATEMENT = re.compile(
    r"(?i)\banswer(?:\s+(?:to|that|which|for|of)\b[^.\n:]{0,60}?)?\s*(?:\bis|:|=)\s*:?\s*(.{1,200}?)(?=\.(?:\s|$)|\n|<\||</s>|$)"
)
_HASHES = re.compile(r"####\s*([^\n]{1,80}?)(?=\n|<\||</s>|$)")
_JSON = re.compile(r'"answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^",}\n\s][^",}\n]*))')
_ANSWER_LINE = re.compile(r"(?m)^A:\s*([^\n]{1,40}?)\s*$")
_LATEX_NOISE = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:|quad|qquad)(?![a-zA-Z])|\\%|\\\$|~")
_LATEX_BOX = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_MARKUP = ("\\[", "\\(", "$", "$$", "```", "```json", "json", "{")  # an answer that begins on the next line
_WORDS_IN_ANSWER = 30


@dataclass(frozen=True, slots=True)
class Gold:
    """What counts as right for one item.

    kind: "choice" (a letter), "number" or "text". accepted: normalised answers. options: texts of the choices, A first.
    """

    kind: AnswerKind
    accepted: frozenset[str]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it stands in a text: normalised value, and where the statement of it ends."""

    value: str
    end: int


def gold_of(target: str, choices: Sequence[str] | None = None) -> Gold:
    """The gold answer of an item, from its target and its options.

    A target that is one of the options' texts counts as its letter too; several accepted answers are split at "; ".

    >>> gold_of("(B)").kind, gold_of("1,200").accepted, gold_of("valid").kind
    ('choice', frozenset({'1200'}), 'text')
    """
    options = tuple(_plain(choice) for choice in choices or ())
    parts = [part for part in target.split("; ") if part.strip()] or [target]
    letters = [match[1] for part in parts if (match := _CHOICE.fullmatch(part.strip()))]
    if letters:
        return Gold("choice", frozenset(letters), options)
    if _plain(target) in options:
        return Gold("choice", frozenset({chr(ord("A") + options.index(_plain(target)))}), options)
    numbers = [number for part in parts if (number := _as_number(part)) is not None]
    if len(numbers) == len(parts):
        return Gold("number", frozenset(numbers))
    return Gold("text", frozenset(_plain(part) for part in parts))


def answers_in(text: str, gold: Gold) -> list[Answer]:
    """All statements of an answer in a text, in order, of the kind that the item asks for.

    Looks for answers that are marked as such (`#### X`, balanced `\\boxed{X}`, a JSON field `"answer"`); in a text
    without, for `answer is X`, `answer: X` or a line `A: X`; in a text without those, for a first line that is nothing
    but an answer.

    >>> [found.value for found in answers_in("The answer is (B).\\n\\nQ: next? The answer is (C).", gold_of("(B)"))]
    ['B', 'C']
    """
    marked = [(m.start(), m.end(), m[1]) for m in _HASHES.finditer(text)]
    marked += [(m.start(), m.end(), m[1] if m[1] is not None else m[2]) for m in _JSON.finditer(text)]
    marked += _boxed(text)
    for spans in (
        marked,
        [(m.start(), m.end(), m[1]) for said in (_STATEMENT, _ANSWER_LINE) for m in said.finditer(text)],
    ):
        found = [(_value(raw, gold), end) for _, end, raw in _outermost(spans)]
        if answers := [Answer(value, end) for value, end in found if value is not None]:
            return answers
    stripped = text.lstrip()
    first_line = stripped.split("\n", 1)[0]
    if 0 < len(first_line.split()) <= _WORDS_IN_ANSWER:
        value = _value(cut_end_marker(first_line), gold, alone=True)
        if value is not None:
            return [Answer(value, len(text) - len(stripped) + len(first_line))]
    return []


def _boxed(text: str) -> list[tuple[int, int, str]]:
    spans = []
    for start in (match.start() for match in re.finditer(r"\\boxed\s*\{", text)):
        depth, at = 0, text.index("{", start)
        for end in range(at, min(len(text), at + 400)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                spans.append((start, end + 1, text[at + 1 : end]))
                break
    return spans


def _outermost(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans in order; of two that overlap the wider one stays, with the content of the narrower ("is \\boxed{5}")."""
    kept: list[tuple[int, int, str]] = []
    for start, end, raw in sorted(spans, key=lambda span: (span[0], -span[1])):
        if kept and start < kept[-1][1]:
            outer = kept[-1]
            kept[-1] = (outer[0], max(outer[1], end), raw)
        else:
            kept.append((start, end, raw))
    return kept


def _value(raw: str, gold: Gold, *, alone: bool = False) -> str | None:
    """The normalised answer in a statement, or None if it is not of the kind asked for.

    alone: the statement must be nothing but the answer (a bare first line has no words that announce it).
    """
    raw = raw.strip().strip("*_` ")
    if raw in _MARKUP:
        return None
    if gold.kind == "choice":
        several = sorted(set(_IN_PARENTHESES.findall(raw)))
        if len(several) > 1 and not alone:
            return " and ".join(several)
        match = _CHOICE.fullmatch(raw.rstrip(".")) if alone else _IN_PARENTHESES.search(raw) or _FIRST_LETTER.match(raw)
        if match:
            return match[1]
        plain = _plain(raw)
        return chr(ord("A") + gold.options.index(plain)) if plain in gold.options else None
    if gold.kind == "number":
        number = _as_number(raw)
        if number is None and not alone:
            match = _NUMBER.search(raw.replace("\\!", ""))
            number = _as_number(match[0]) if match else None
        return number
    most = _WORDS_IN_ANSWER
    if alone:  # a sentence that was cut short is no answer to a question of yes or no
        most = min(most, max(2, 2 * max(len(accepted.split()) for accepted in gold.accepted)))
    return _plain(raw) if raw and len(raw.split()) <= most else None


def matches(value: str, gold: Gold) -> bool:
    """Whether a normalised answer is right; numbers within one part in a million."""
    if value in gold.accepted:
        return True
    if gold.kind != "number":
        number = _as_number(value)
        return number is not None and number in {_as_number(accepted) for accepted in gold.accepted}
    return any(math.isclose(float(value), float(accepted), rel_tol=1e-6) for accepted in gold.accepted)


def majority(found: Sequence[Answer]) -> str | None:
    """The most frequent answer; the earliest of equals."""
    counts = Counter(answer.value for answer in found)
    return max(counts, key=lambda value: counts[value]) if counts else None


def last_token(text: str, gold: Gold) -> str | None:
    """The last number (or option letter) of a text, as flexible extraction rules take it."""
    if gold.kind == "number":
        every = _NUMBER.findall(text)
        return _as_number(every[-1]) if every else None
    if gold.kind == "choice":
        every = _LETTER.findall(text)
        return every[-1] if every else None
    return None


def gold_in_tail(text: str, gold: Gold, *, characters: int = 200) -> bool:
    """Whether a right answer stands anywhere in the last characters: generous, an upper bound only."""
    tail = text[-characters:]
    if gold.kind == "number":
        return any(matches(number, gold) for raw in _NUMBER.findall(tail) if (number := _as_number(raw)))
    if gold.kind == "choice":
        return not gold.accepted.isdisjoint(_LETTER.findall(tail))
    tail = _plain(tail)
    return any(re.search(rf"(?<!\w){re.escape(accepted)}(?!\w)", tail) for accepted in gold.accepted if accepted)


def cut_end_marker(text: str) -> str:
    """The text before the first literal end marker, such as `<|im_end|>`.

    >>> cut_end_marker("The answer is 4.<|im_end|>\\n<|im_start|>user")
    'The answer is 4.'
    """
    found = [at for marker in END_MARKERS if (at := text.find(marker)) >= 0]
    return text[: min(found)] if found else text


@lru_cache(maxsize=65_536)
def _as_number(raw: str) -> str | None:
    """A number in one spelling ("1,200.0" and "$1200" are "1200"; "1/4" is "0.25"), or None."""
    text = raw.strip().strip("$").rstrip(".").replace(",", "").replace("\\!", "").replace(" ", "")
    text = re.sub(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text).removesuffix("%").removesuffix("\\").strip("$")
    if not re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?(?:/\d+)?", text, re.IGNORECASE):
        return None
    above, _, below = text.partition("/")
    try:
        number = float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


@lru_cache(maxsize=65_536)
def _plain(raw: str) -> str:
    """Text without markup, case, spaces inside formulas, thousands separators or closing punctuation."""
    text = _LATEX_BOX.sub(r"\1", raw.strip()).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _LATEX_NOISE.sub("", text).replace("$", "").replace("**", "").replace("^\\circ", "").replace("^{\\circ}", "")
    text = re.sub(r"\\(frac|sqrt)\s*(?![{\[])(\w)", r"\\\1{\2}", text)
    text = re.sub(r"(\\frac\{(?:[^{}]|\{[^{}]*\})*\})\s*(\w)", r"\1{\2}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).replace('"', "'")
    text = re.sub(r"\s+", " ", text).strip().strip("'`").rstrip(".,;:!").strip().casefold()
    return re.sub(r"\s*([-+*/=^_,(){}\[\]<>|&])\s*", r"\1", text)

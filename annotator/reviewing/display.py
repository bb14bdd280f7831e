"""A record as a person may safely see it: clipped, evidence marked, invisible characters made visible."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_CHARS, TAIL_CHARS = 40_000, 10_000
_AROUND_EVIDENCE = 1_000

# Control characters but for tab and line feed, C1, soft hyphen, zero width, marks of direction, line separators, tags,
# lone surrogates. The joiners U+200C and U+200D are left: Persian, Hindi and emoji are spelt with them.
_INVISIBLE = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f])\\1*"
)
_QUOTES = "\"'“”‘’ .…"  # as `judges.answers.is_verbatim` leaves them out

Piece = tuple[str, str]
"""(mark, text): "" text, "evidence" text of the judge's quote, "hidden" a character's number, "gap" a gap."""


@dataclass(frozen=True, slots=True)
class Display:
    """pieces: to be shown one after the other. omitted: characters left out. quoted: whether the evidence was found."""

    pieces: list[Piece]
    omitted: int
    quoted: bool


def display(text: str, evidence: str | None) -> Display:
    """A record of any length and content in pieces of plain text; the page shows them as text, never as markup.

    Records above 50,000 characters are clipped to head and tail, and to where the evidence is.
    """
    quote = find_quote(text, evidence or "")
    pieces: list[Piece] = []
    at = omitted = 0
    for start, end in _windows(len(text), quote):
        if start > at:
            omitted += start - at
            pieces.append(("gap", f"{start - at:,} characters are not shown"))
        pieces += _marked(text, start, end, quote)
        at = end
    return Display(pieces, omitted, quote is not None)


def visible(text: str) -> str:
    """A short text (an id, a name) on one line, invisible characters as their numbers."""
    one_line = text.replace("\n", " ").replace("\t", " ")
    return "".join(f"[{part}]" if hidden else part for hidden, part in _split(one_line))


def find_quote(text: str, quote: str) -> tuple[int, int] | None:
    """(start, end) of a judge's quote in a record; white space, case and quotation marks around it do not count."""
    words = quote.strip(_QUOTES).split()
    if not words:
        return None
    start = text.find(quote)
    if start >= 0:
        return start, start + len(quote)
    found = re.search(r"\s+".join(map(re.escape, words)), text, re.IGNORECASE)
    return found.span() if found else None


def _windows(length: int, quote: tuple[int, int] | None) -> list[tuple[int, int]]:
    if length <= HEAD_CHARS + TAIL_CHARS:
        return [(0, length)]
    wanted = [(0, HEAD_CHARS), (length - TAIL_CHARS, length)]
    if quote:
        wanted.append((max(0, quote[0] - _AROUND_EVIDENCE), min(length, quote[1] + _AROUND_EVIDENCE)))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(wanted):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _marked(text: str, start: int, end: int, quote: tuple[int, int] | None) -> Iterator[Piece]:
    first, last = quote or (end, end)
    first, last = min(max(first, start), end), min(max(last, start), end)
    for mark, part in (("", text[start:first]), ("evidence", text[first:last]), ("", text[last:end])):
        for hidden, shown in _split(part.replace("\r\n", "\n")):
            yield hidden or mark, shown


def _split(text: str) -> Iterator[Piece]:
    at = 0
    for found in _INVISIBLE.finditer(text):
        if found.start() > at:
            yield "", text[at : found.start()]
        times = len(found.group())
        yield "hidden", f"U+{ord(found.group()[0]):04X}" + (f" ×{times:,}" if times > 1 else "")
        at = found.end()
    if at < len(text):
        yield "", text[at:]

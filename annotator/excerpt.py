"""Long records, cut to what a judge can take; and how many tokens a text is, without any provider's tokenizer."""

from __future__ import annotations

import hashlib
import re

_BYTES_PER_TOKEN = 4
_GAP = "\n\n[...]\n\n"
_PARAGRAPH = re.compile(r"\n\s*\n")
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s")
# Shares of the head and of the middle; the tail gets the rest. Openings say most about what a document is.
_HEAD, _MIDDLE = 0.5, 0.25


def token_estimate(text: str) -> int:
    """About how many tokens a text is: UTF-8 bytes by four.

    Byte-pair vocabularies come to 3.5-4.5 bytes a token on English prose, 3-4 on code and formulas, and about one to
    two tokens a character on scripts of three bytes a character.

    >>> token_estimate("four score and seven years ago")
    8
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // _BYTES_PER_TOKEN)


def excerpt(text: str, max_tokens: int) -> tuple[str, bool]:
    """(text, False) if it is short enough, else (its head, middle and tail within `max_tokens`, True).

    Windows begin and end at paragraphs where there are some near, else at lines, else at words. Where the middle one
    begins follows from a hash of the text: the same text is always cut in the same way, and no position in documents is
    systematically unseen.
    """
    if token_estimate(text) <= max_tokens:
        return text, False
    # In characters, so that scripts with long encodings get fewer of them.
    room = int(max_tokens * _BYTES_PER_TOKEN * len(text) / len(text.encode("utf-8", "replace"))) - 2 * len(_GAP)
    room = max(room, 48)
    head_end = _cut_before(text, int(room * _HEAD), 0)
    tail_start = _cut_after(text, len(text) - int(room * (1 - _HEAD - _MIDDLE)), len(text))
    size = int(room * _MIDDLE)
    between = tail_start - head_end - size
    draw = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8]) / 2**64
    start = _cut_after(text, head_end + int(max(0, between) * draw), tail_start)
    end = _cut_before(text, min(start + size, tail_start), start)
    windows = [text[:head_end], text[start:end], text[tail_start:]]
    return _GAP.join(window.strip() for window in windows if window.strip()), True


def consecutive(text: str, max_tokens: int, most: int) -> tuple[list[str], bool]:
    """(chunks of a text within `max_tokens` each, in order; whether some of the text is in none of them).

    One chunk if the text is short enough; else as few as hold all of it, cut where `excerpt` would cut; and if that
    takes more than `most`, so many of them: the first begins with the text, the last ends with it, and the others are
    spread evenly between. The same text is always cut in the same way.
    """
    if token_estimate(text) <= max_tokens:
        return [text], False
    room = max(48, int(max_tokens * _BYTES_PER_TOKEN * len(text) / len(text.encode("utf-8", "replace"))))
    borders = [0]
    while len(text) - borders[-1] > room and len(borders) <= most:
        borders.append(_cut_before(text, borders[-1] + room, borders[-1]))
    complete = len(borders) <= most
    if complete:
        spans = list(zip(borders, [*borders[1:], len(text)], strict=True))
    else:
        spans = [(0, _cut_before(text, room, 0))]
        for number in range(1, most - 1):
            start = max(spans[-1][1], _cut_after(text, number * (len(text) - room) // (most - 1), len(text) - room))
            spans.append((start, _cut_before(text, start + room, start)))
        spans.append((max(spans[-1][1], _cut_after(text, len(text) - room, len(text))), len(text)))
    chunks = [text[start:end].strip() for start, end in spans]
    return [chunk for chunk in chunks if chunk], not complete


def _cut_before(text: str, limit: int, start: int) -> int:
    """The last good place to end a window that begins at `start`, not after `limit` and not in its first half."""
    earliest = start + (limit - start) // 2
    for border in (_PARAGRAPH, _LINE, _WORD):
        places = [match.start() for match in border.finditer(text, earliest, limit)]
        if places:
            return places[-1]
    return limit


def _cut_after(text: str, limit: int, end: int) -> int:
    """The first good place to begin a window at or after `limit`, in the first half of what is left up to `end`."""
    latest = limit + (end - limit) // 2
    for border in (_PARAGRAPH, _LINE, _WORD):
        match = border.search(text, limit, latest)
        if match:
            return match.end()
    return limit

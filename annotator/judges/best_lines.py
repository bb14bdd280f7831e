"""The line of a text that a student gives as evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annotator.fingerprint import without_surrogates

MAX_EVIDENCE_CHARS = 200


def best_lines(text: np.ndarray, line: np.ndarray, weight: np.ndarray, texts: int) -> np.ndarray:
    """The line of each text whose words weigh most together, the first of equal ones; 0 for a text without words.

    text, line, weight: of each word, in reading order.
    """
    begins = _run_starts(text) | _run_starts(line)
    total = np.round(np.bincount(np.cumsum(begins) - 1, weights=weight), 6)
    first = np.flatnonzero(begins)
    text, line = text.take(first), line.take(first)
    highest = np.full(texts, -np.inf)
    np.maximum.at(highest, text, total)
    among_best = np.flatnonzero(total == highest[text])[::-1]
    best = np.zeros(texts, dtype=np.int64)
    best[text[among_best]] = line[among_best]  # backwards, so that the first of equal lines is written last
    return best


def quotes(bodies: Sequence[str], lines: np.ndarray) -> list[str]:
    """These lines of the texts, clipped; in place of an empty one the first that is not."""
    found = []
    for body, at in zip(bodies, lines, strict=True):
        quote = body.split("\n")[at].strip() or next((line.strip() for line in body.split("\n") if line.strip()), "")
        found.append(without_surrogates(_clip(quote)))
    return found


def _run_starts(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one before it."""
    return np.append([True], values[1:] != values[:-1])[: len(values)]


def _clip(text: str) -> str:
    """At most MAX_EVIDENCE_CHARS characters, cut between words where there is a gap."""
    if len(text) <= MAX_EVIDENCE_CHARS:
        return text
    head = text[:MAX_EVIDENCE_CHARS]
    return head.rpartition(" ")[0].rstrip() or head

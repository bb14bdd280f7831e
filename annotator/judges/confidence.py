"""How sure a model was of a label, from the log-probabilities of the tokens of its answer."""

from __future__ import annotations

import math
import re
from typing import Any

_AXES = ("background_condition", "task_type", "solving_operation", "output_constraint")
_VALUE = {axis: re.compile(rb'"%b"\s*:\s*(\[[^\]]*\]|"[^"]*")' % axis.encode()) for axis in _AXES}
_WORD = re.compile(rb'"([^"]*)"')


def confidence_of(choice: dict[str, Any]) -> float | None:
    """The least probability, over the four axes, that the model gave to the value that it chose; None if not told.

    The probability of a value is that of all tokens that write it, given what stands before it; of the operations the
    least sure one counts. It is the model's own, and as such seldom calibrated: compare with gold before use.
    """
    tokens = _tokens((choice.get("logprobs") or {}).get("content"))
    if not tokens:
        return None
    text = b"".join(written for written, _ in tokens)
    least = 1.0
    for pattern in _VALUE.values():
        found = list(pattern.finditer(text))
        if not found:
            return None
        for word in _WORD.finditer(text, *found[-1].span(1)):  # the last: a quote before it may hold the same words
            least = min(least, _probability(tokens, *word.span(1)))
    return least


def _probability(tokens: list[tuple[bytes, float]], start: int, end: int) -> float:
    """The probability of the tokens that overlap the bytes from `start` to `end`."""
    total, at = 0.0, 0
    for written, logprob in tokens:
        if at < end and at + len(written) > start:
            total += logprob
        at += len(written)
    return math.exp(min(0.0, total))


def _tokens(content: Any) -> list[tuple[bytes, float]]:
    """(bytes, log-probability) of each token; empty if the server's list is not what it should be."""
    if not isinstance(content, list):
        return []
    try:
        return [
            (bytes(one["bytes"]) if one.get("bytes") is not None else str(one["token"]).encode(), float(one["logprob"]))
            for one in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []

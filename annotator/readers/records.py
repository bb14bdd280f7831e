"""The records that readers hand on, and the one text form in which an item is shown to a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

BadReason = Literal["bad_json", "missing_id", "empty_text"]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why; the run goes on without it.

    shard: the shard's name. row: 0-based row in the shard (see `Shard.place`). record_id: where it could be read.
    reason: bad_json (not a JSON object), missing_id, empty_text. detail: a few words for people.
    """

    shard: str
    row: int
    record_id: str | None
    reason: BadReason
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows of one shard: `frame` has the good ones, `bad` the others. Both together are what was read.

    frame: record_id str, text str, row i64 (0-based row in the shard, rising); for documents also source str, lang str,
    url str, tokens i64, quality f64 (null where the table has none).
    """

    frame: pl.DataFrame
    bad: list[BadRow] = field(default_factory=list)


def item_text(prompt: str, choices: Sequence[str] | None = None, target: str | None = None) -> str:
    r"""An item as one text: what a judge labels, a student learns from and decontamination looks for.

    >>> item_text("2 + 2 = ?", ["3", "4"], "B")
    '2 + 2 = ?\nOptions:\n(A) 3\n(B) 4\nReference answer: B'
    >>> item_text("Prove that 2 is even.")
    'Prove that 2 is even.'
    """
    lines = [prompt]
    if choices:
        lines.append("Options:")
        lines += [f"({option_name(index)}) {choice}" for index, choice in enumerate(choices)]
    if target is not None and target.strip():
        lines.append(f"Reference answer: {target}")
    return "\n".join(lines)


def option_name(index: int) -> str:
    """The letter of the option at a 0-based index: A..Z, then the 1-based number."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)

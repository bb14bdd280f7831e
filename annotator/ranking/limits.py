"""The limits of a ranked list: budget, passes, caps, background text, languages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from annotator.errors import BadInput


@dataclass(frozen=True, slots=True)
class Limits:
    """What a list must keep to.

    budget_tokens: tokens to add, repeats included. max_repeats: passes over one document.
    max_source_share, max_host_share: the share of the budget that one source, one web host may have, where there are
        two or more; None for no cap. replay_share: the share of the budget kept for background text that serves no
        slice. languages: only documents of these languages (`lang`); those without one stay.
    """

    budget_tokens: int
    max_repeats: int
    max_source_share: float | None
    max_host_share: float | None
    replay_share: float
    languages: Collection[str] | None

    def __post_init__(self) -> None:
        if self.budget_tokens < 1:
            what = f"a budget of {self.budget_tokens} tokens"
            raise BadInput(what, where="--budget-tokens", remedy="Give 1 or more.")
        if self.max_repeats < 1:
            raise BadInput(f"{self.max_repeats} passes at most", where="--max-repeats", remedy="Give 1 or more.")
        for option, share in (("source", self.max_source_share), ("host", self.max_host_share)):
            if share is not None and not 0 < share <= 1:
                remedy = "It lies above 0 and is at most 1."
                raise BadInput(f"a {option} share of {share}", where=f"--max-{option}-share", remedy=remedy)
        if not 0 <= self.replay_share < 1:
            remedy = "It is 0 or more, and less than 1."
            raise BadInput(f"a replay share of {self.replay_share}", where="--replay-share", remedy=remedy)

    @property
    def targeted_tokens(self) -> int:
        """What is left for the slices after the share of background text."""
        return self.budget_tokens - int(self.replay_share * self.budget_tokens)

    def caps(self, table: pl.DataFrame) -> dict[str, int]:
        """Tokens that one value of a column may have; only of columns with two values or more."""
        shares = {"source": self.max_source_share, "host": self.max_host_share}
        return {
            column: int(share * self.targeted_tokens)
            for column, share in shares.items()
            if share is not None and table[column].drop_nulls().n_unique() > 1
        }

"""The limits of a ranked list: budget, passes, caps, background text, languages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from annotator.errors import BadInput, some_of


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

    def unseen_languages(self, present: pl.Series) -> list[str]:
        """Languages asked for that no document has.

        Raises:
            BadInput: all of them are.
        """
        if not self.languages:
            return []
        there = present.drop_nulls().unique().cast(pl.String).to_list()
        unseen = [language for language in dict.fromkeys(self.languages) if language not in there]
        if len(unseen) < len(self.languages):
            return unseen
        if not there:
            remedy = "Name the column with --column lang=YOURS, or leave the languages out."
            raise BadInput("no document says its language", where="--languages", remedy=remedy)
        what = f"no document is in {' or '.join(unseen)}: they have {some_of(there, most=12)}"
        raise BadInput(what, where="--languages", remedy="Name languages as the documents do.")

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

"""pass@k before and after for every k the samples allow, beside what guessing would reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from annotator.guessing import stated_answers
from annotator.scores import guess_floor, item_scores
from annotator.slicing.outcomes import rounded


def pass_table(
    items: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, item_ids: list[str]
) -> list[dict[str, Any]]:
    """One row a k (1, 2, 4, ... up to the samples that every item has): mean pass@k and permuted-gold floor, per side.

    The floor is null where texts or targets are not there. Several runs in `after` count as more samples.
    """
    wanted = pl.DataFrame({"item_id": item_ids})
    sides = {
        "before": before.join(wanted, on="item_id", how="semi"),
        "after": after.join(wanted, on="item_id", how="semi"),
    }
    most = min(int(item_scores(frame)["samples"].min()) for frame in sides.values())
    answers = {
        name: stated_answers(items, frame, frame["item_id"].unique().sort().to_list()) for name, frame in sides.items()
    }
    rows = []
    k = 1
    while k <= most:
        row: dict[str, Any] = {"k": k}
        for name, frame in sides.items():
            row[name] = rounded(float(item_scores(frame, metric=f"pass@{k}")["score"].to_numpy().mean()))
            known = answers[name]
            row[f"{name}_floor"] = rounded(float(np.nanmean(guess_floor(*known, k)))) if known else None
        rows.append(row)
        k *= 2
    return rows

"""pass@k before and after for every k the samples allow, beside what guessing would reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from annotator.diagnosis.answers import Gold, answers_in, gold_of
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
    answers = {name: _answers(items, frame) for name, frame in sides.items()}
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


def _answers(items: pl.DataFrame, samples: pl.DataFrame) -> tuple[list[list[str | None]], list[str]] | None:
    """First stated answer of every output, per item, and the gold answers; None where the log lacks either."""
    if "target" not in items.columns or "response" not in samples.columns or samples["response"].null_count():
        return None
    known = items.unique("item_id").drop_nulls("target")
    golds: dict[str, Gold] = {
        row["item_id"]: gold_of(row["target"], row.get("choices")) for row in known.sort("item_id").to_dicts()
    }
    if not set(samples["item_id"].to_list()) <= set(golds):
        return None
    given: dict[str, list[str | None]] = {item_id: [] for item_id in sorted(set(samples["item_id"].to_list()))}
    for item_id, text in samples.sort("item_id", "response").select("item_id", "response").iter_rows():
        found = answers_in(text, golds[item_id])
        given[item_id].append(found[0].value if found else None)
    return list(given.values()), [min(golds[item_id].accepted) for item_id in given]

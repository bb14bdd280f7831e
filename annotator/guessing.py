"""What pass@k would be by luck: each item's own answers, scored against the gold answers of the others."""

from __future__ import annotations

import polars as pl

from annotator.diagnosis.answers import answers_in, gold_of
from annotator.scores import Floats, guess_floor


def guess_floors(items: pl.DataFrame, samples: pl.DataFrame, item_ids: list[str], k: int) -> Floats | None:
    """The floor of pass@k for each of these items, in their order (`guess_floor`); NaN with fewer than k outputs.

    None where an item has no target, or an output no text: then nothing can be scored again.
    """
    found = stated_answers(items, samples, item_ids)
    return None if found is None else guess_floor(*found, k)


def stated_answers(
    items: pl.DataFrame, samples: pl.DataFrame, item_ids: list[str]
) -> tuple[list[list[str | None]], list[str]] | None:
    """The first stated answer of every output, and a gold answer, of each of these items, in their order.

    The outputs of an item come in the order of their texts. None where an item has no target, or an output no text.
    """
    if "target" not in items.columns or "response" not in samples.columns:
        return None
    wanted = pl.DataFrame({"item_id": item_ids})
    known = items.unique("item_id", keep="first").join(wanted, on="item_id", how="semi").drop_nulls("target")
    outputs = samples.join(wanted, on="item_id", how="semi").sort("item_id", "response")
    if known.height < len(item_ids) or outputs["response"].null_count():
        return None
    golds = {row["item_id"]: gold_of(row["target"], row.get("choices")) for row in known.to_dicts()}
    given: dict[str, list[str | None]] = {item_id: [] for item_id in item_ids}
    for item_id, text in outputs.select("item_id", "response").iter_rows():
        found = answers_in(text, golds[item_id])
        given[item_id].append(found[0].value if found else None)
    return list(given.values()), [min(golds[item_id].accepted) for item_id in item_ids]

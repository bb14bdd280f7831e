"""Dose and response: do slices fail more where a training mixture holds less of what serves them?

With two known mixtures, the dose of a slice is log(share after / share before) of text that serves it, and the response
its deficit. If the change of the mixture made slices fail, deficits are larger where the dose fell: Spearman's rank
correlation is negative, and few permutations of the deficits give one as low.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from annotator.errors import BadInput, some_of
from annotator.fingerprint import fingerprint
from annotator.matching.affinity import pooled
from annotator.matching.profiles import Profiles
from annotator.rule_table import Rules

ROUNDS = 9999
EXACT = 7  # up to so many slices all permutations are tried: 5,040
IMPLICATED = 0.05


def read_mixture(table: pl.DataFrame, *, where: str) -> dict[str, float]:
    """source -> share of the tokens trained on, from a table with source and one of share, weight, tokens.

    Raises:
        BadInput: a column is missing, a source twice, a share negative, or all are 0.
    """
    column = next((name for name in ("share", "weight", "tokens") if name in table.columns), None)
    if "source" not in table.columns or column is None:
        remedy = "It needs the columns source and share (or weight, or tokens)."
        raise BadInput(f"has the columns {', '.join(table.columns)}", where=where, remedy=remedy)
    shares = table.select(pl.col("source").cast(pl.String), pl.col(column).cast(pl.Float64, strict=False))
    if shares["source"].n_unique() < shares.height:
        raise BadInput("a source is there twice", where=where, remedy="Give one row a source.")
    values = shares[column].fill_null(math.nan).to_numpy()
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise BadInput(f"{column} must be numbers of 0 or more, not all 0", where=where)
    return dict(zip(shares["source"].to_list(), (values / values.sum()).tolist(), strict=True))


def dose_response(
    slices: pl.DataFrame,
    matches: pl.DataFrame,
    found: Profiles,
    rules: Rules,
    *,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> dict[str, Any]:
    """Spearman's correlation of deficits with doses over the slices that both mixtures serve.

    Args:
        slices: SLICES with deficits. matches: MATCHES. found: profiles of the corpus, with source and tokens.
        before, after: source -> share (`read_mixture`).

    Returns:
        rho, p (one-sided, by permutation; null below 3 slices or if all doses are equal), implicated (p < .05),
        slices [{slice_id, deficit, share_before, share_after, log_ratio}], note.

    Raises:
        BadInput: the mixtures name no source in common, or none that a document comes from.
    """
    _check_sources(before, after, found)
    served = _served(matches, found, rules)
    rows = []
    for slice_id, deficit in slices.select("slice_id", "deficit").iter_rows():
        mine = served.get(slice_id, {})
        old, new = (sum(share * mine.get(source, 0.0) for source, share in mix.items()) for mix in (before, after))
        if deficit is not None and old > 0 and new > 0:
            rows.append({"slice_id": slice_id, "deficit": deficit, "share_before": old, "share_after": new,
                         "log_ratio": math.log(new / old)})  # fmt: skip
    rows.sort(key=lambda row: row["slice_id"])
    rho, p = _spearman([row["deficit"] for row in rows], [row["log_ratio"] for row in rows])
    if p is None:
        note = "Fewer than 3 slices are served by both mixtures, or all doses are equal: nothing can be said."
    else:
        less = "fail more where the mixture holds less of what serves them"
        note = f"Slices {less} (rho {rho:.2f}, p {p:.3f})." if p < IMPLICATED else f"No sign that slices {less}."
    return {"rho": rho, "p": p, "implicated": p is not None and p < IMPLICATED, "slices": rows, "note": note}


def _check_sources(before: Mapping[str, float], after: Mapping[str, float], found: Profiles) -> None:
    if not before.keys() & after.keys():
        what = f"no source is in both mixtures: the first has {some_of(before)}, the second {some_of(after)}"
        remedy = "Spell sources alike in both; one that was left out or added has the share 0 in the other."
        raise BadInput(what, where="--mixtures", remedy=remedy)
    known = found.documents["source"].drop_nulls().unique().cast(pl.String).to_list()
    if not set(known) & {*before, *after}:
        theirs = f"they have {some_of(known)}" if known else "they name no source (--column source=YOURS)"
        what = f"no document comes from a source of the mixtures, {some_of({**before, **after})}: {theirs}"
        raise BadInput(what, where="--mixtures", remedy="Spell sources in the mixtures as in the documents.")


def _served(matches: pl.DataFrame, found: Profiles, rules: Rules) -> dict[str, dict[str, float]]:
    """slice -> source -> the part of its tokens (documents, where tokens are unknown) that serves the slice."""
    size = pl.col("tokens").sum() if not found.documents["tokens"].null_count() else pl.len()
    groups = (
        found.documents.lazy()
        .group_by("source", "profile")
        .agg(size.alias("size"))
        .with_columns(pl.col("source").cast(pl.String))
        .drop_nulls("source")
        .sort("source", "profile")
        .collect()
    )
    totals = dict(groups.group_by("source").agg(pl.col("size").sum()).iter_rows())
    known = groups.drop_nulls("profile")
    profile, sizes = known["profile"].to_numpy(), known["size"].to_numpy()
    free = np.array([guard is None for guard in found.guards], dtype=bool)
    columns = {category.id: k for k, category in enumerate(found.categories)}
    served = {}
    for (slice_id,), mine in matches.partition_by("slice_id", as_dict=True).items():
        pull = np.zeros(len(columns) + 1)
        for category_id, affinity in mine.select("category_id", "affinity").iter_rows():
            if category_id in columns:
                pull[columns[category_id]] = affinity
        worth = np.where(free, pooled(pull[found.members], rules), 0.0)
        of_group = pl.DataFrame({"source": known["source"], "served": worth[profile] * sizes})
        sums = of_group.group_by("source", maintain_order=True).agg(pl.col("served").sum())
        served[str(slice_id)] = {source: value / totals[source] for source, value in sums.iter_rows()}
    return served


def _spearman(response: list[float], dose: list[float]) -> tuple[float | None, float | None]:
    x, y = (_ranks(values) for values in (dose, response))
    if len(x) < 3 or not x.std() or not y.std():
        return None, None
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    rho = float(x @ y / len(x))
    if len(x) <= EXACT:
        rounds = np.array(list(itertools.permutations(y)))
        return round(rho, 6), float((rounds @ x <= rho * len(x) + 1e-9).mean())
    generator = np.random.default_rng(int(fingerprint([dose, response])[:15], 16))
    low = sum(generator.permutation(y) @ x <= rho * len(x) + 1e-9 for _ in range(ROUNDS))
    return round(rho, 6), (1 + int(low)) / (1 + ROUNDS)


def _ranks(values: list[float]) -> np.ndarray:
    return pl.Series(values, dtype=pl.Float64).rank("average").to_numpy()

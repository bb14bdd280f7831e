"""How well the codebook fits what it is used on: escape values, empty and crowded values, axes that tell the same."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl

from annotator.coefficients import Codes, rounded
from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.taxonomy import AXES, GRADES, KINDS, Kind, Taxonomy

OTHER_SHARE = 0.10  # more records than this in "other" ask for a new value
CROWDED_SHARE = 1 / 3  # a value that holds more than this hides what could be told apart
DEPENDENT = 0.5  # normalised mutual information above chance: half of what one axis tells, the other told before
_SHUFFLES = 10
_PRIMARY = "solving_operation"


def coverage(labels: pl.DataFrame, taxonomy: Taxonomy) -> dict[str, Any]:
    """What labels say about the codebook, for items and documents apart.

    Args:
        labels: LABELS columns (kind, record_id and the axes at least); failed rows are left out and counted.
        taxonomy: the one that the labels were made with.

    Returns:
        taxonomy_version, failed, kinds {kind: {records, axes, dependence}}, findings [{kind, side, axis, value?,
        message}]. axes {axis: {defined, used, other_share, entropy_bits, evenness, empty [value], crowded [{value,
        share}], unknown [value], values [{value, records, share}]}}: entropy of the values in bits, evenness = entropy
        / log2 of the number of defined values. dependence [{axes, nmi, by_chance}]: mutual information of two axes over
        the mean of their entropies (Essential-Web reports less than 0.10 between its fields), and what shuffled labels
        give, since small samples of many values never give 0.
        A record counts once for each operation it names, in dependence by its primary one.
        Findings: other_share, empty_value, crowded_value, unknown_value, dependent_axes.

    Raises:
        BadInput: labels of another taxonomy version, or no label at all.
    """
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    versions = good["taxonomy_version"].drop_nulls().unique().sort() if "taxonomy_version" in good.columns else []
    if set(versions) - {taxonomy.version}:
        foreign = next(version for version in versions if version != taxonomy.version)
        remedy = "Give the taxonomy that the labels were made with (--taxonomy FILE)."
        raise BadInput(
            f"made with taxonomy version {foreign!r}, not {taxonomy.version!r}", where="labels", remedy=remedy
        )
    if good.is_empty():
        raise BadInput("no record has a label", where="labels", remedy="Label some records first.")
    kinds = {kind: good.filter(pl.col("kind") == kind).sort("record_id") for kind in KINDS}
    found = {kind: _side(frame, kind, taxonomy) for kind, frame in kinds.items() if frame.height}
    return {
        "taxonomy_version": taxonomy.version,
        "failed": labels.height - good.height,
        "kinds": found,
        "findings": [finding for kind, side in found.items() for finding in _findings(kind, side)],
    }


def _side(frame: pl.DataFrame, kind: Kind, taxonomy: Taxonomy) -> dict[str, Any]:
    grades = [grade for grade in GRADES if grade in frame.columns and frame[grade].null_count() < frame.height]
    defined = {axis: taxonomy.values(axis, kind) for axis in AXES} | {
        grade: taxonomy.grade_values(grade) for grade in grades
    }
    return {
        "records": frame.height,
        "axes": {axis: _axis(frame, axis, list(values)) for axis, values in defined.items()},
        "dependence": [_dependence(frame, one, other) for one, other in itertools.combinations(defined, 2)],
    }


def _axis(frame: pl.DataFrame, axis: str, defined: list[str]) -> dict[str, Any]:
    column = pl.col(axis).explode() if axis == _PRIMARY else pl.col(axis)
    uses = frame.select(column.cast(pl.String).alias("value")).drop_nulls().group_by("value").len()
    counts = dict(sorted(uses.rows(), key=lambda row: (-row[1], row[0])))
    shares = np.array(list(counts.values())) / max(1, sum(counts.values()))
    entropy = float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0
    of_records = {value: count / frame.height for value, count in counts.items()}
    return {
        "defined": len(defined),
        "used": sum(value in counts for value in defined),
        "other_share": rounded(of_records.get("other", 0.0)),
        "entropy_bits": rounded(entropy),
        "evenness": rounded(entropy / np.log2(len(defined))) if len(defined) > 1 else None,
        "empty": [value for value in defined if value not in counts],
        "crowded": [
            {"value": value, "share": rounded(share)} for value, share in of_records.items() if share > CROWDED_SHARE
        ],
        "unknown": [value for value in counts if value not in defined],
        "values": [{"value": v, "records": count, "share": rounded(of_records[v])} for v, count in counts.items()],
    }


def _dependence(frame: pl.DataFrame, one: str, other: str) -> dict[str, Any]:
    both = frame.select(_primary(one), _primary(other)).drop_nulls()
    first, second = (both[axis].rank("dense").to_numpy().astype(np.int64) - 1 for axis in (one, other))
    generator = np.random.default_rng(int(fingerprint([one, other, first.tolist(), second.tolist()])[:16], 16))
    shuffled = [_nmi(first, generator.permutation(second)) for _ in range(_SHUFFLES)]
    return {"axes": [one, other], "nmi": rounded(_nmi(first, second)), "by_chance": rounded(float(np.mean(shuffled)))}


def _primary(axis: str) -> pl.Expr:
    return pl.col(axis).list.first() if axis == _PRIMARY else pl.col(axis).cast(pl.String)


def _nmi(first: Codes, second: Codes) -> float:
    """2 I(X;Y) / (H(X) + H(Y)); NaN if both axes have one value only."""
    if not len(first):
        return float("nan")
    joint = np.bincount(first * (second.max() + 1) + second)
    h_first, h_second, h_joint = (_entropy(counts) for counts in (np.bincount(first), np.bincount(second), joint))
    total = h_first + h_second
    return 2 * (total - h_joint) / total if total > 0 else float("nan")


def _entropy(counts: Codes) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _findings(kind: str, side: dict[str, Any]) -> list[dict[str, Any]]:
    found = []

    def tell(what: str, axis: str, message: str, value: str | None = None) -> None:
        found.append({"kind": what, "side": kind, "axis": axis, "value": value, "message": message})

    for axis, each in side["axes"].items():
        for value in each["unknown"]:
            tell("unknown_value", axis, f"{value!r} is used but not defined for {kind}s: migrate these labels.", value)
        if each["other_share"] > OTHER_SHARE:
            message = f"{each['other_share']:.0%} of {kind}s are 'other': a value is missing."
            tell("other_share", axis, message, "other")
        for crowded in each["crowded"]:
            if axis not in GRADES and crowded["value"] != "other":
                message = f"{crowded['share']:.0%} of {kind}s are {crowded['value']!r}: consider splitting it."
                tell("crowded_value", axis, message, crowded["value"])
        for value in each["empty"]:
            if value != "other":
                tell("empty_value", axis, f"{value!r} is used for none of {side['records']:,} {kind}s.", value)
    for pair in side["dependence"]:
        if pair["nmi"] is not None and pair["nmi"] - pair["by_chance"] > DEPENDENT:
            one, other = pair["axes"]
            message = f"{one} and {other} tell much the same of {kind}s (NMI {pair['nmi']:.2f}, by chance "
            tell("dependent_axes", one, f"{message}{pair['by_chance']:.2f}).", other)
    return found

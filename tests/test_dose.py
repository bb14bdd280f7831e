"""Dose and response over two known mixtures."""

from __future__ import annotations

import math

import polars as pl
import pytest
from made_rows import label, labels, slice_row, slices

from annotator.errors import BadInput
from annotator.mapping import load_rules
from annotator.match import match
from annotator.matching.dose import read_mixture
from annotator.taxonomy import load_taxonomy

OPERATIONS = ["arithmetic", "deduction", "composition", "comparison", "causal_reasoning"]
RULES, TAXONOMY = load_rules(), load_taxonomy()


def dosed(deficits, before, after):
    """One source and one slice an operation; the slices' deficits and two mixtures of the sources."""
    rows = [label(operation, operation, "other", "explain") for operation in OPERATIONS]
    corpus = pl.DataFrame({"doc_id": OPERATIONS, "source": OPERATIONS, "tokens": [100] * len(OPERATIONS)})
    wanted = [slice_row(op, op, deficit=deficit) for op, deficit in zip(OPERATIONS, deficits, strict=True)]
    mixtures = tuple(
        read_mixture(pl.DataFrame({"source": OPERATIONS, "share": shares}), where="mix") for shares in (before, after)
    )
    found = match(slices(*wanted), labels(*rows), rules=RULES, taxonomy=TAXONOMY, documents=corpus, mixtures=mixtures)
    return found.summary["dose_response"]


def test_slices_that_fail_where_the_mixture_was_cut_implicate_it():
    """Deficits fall as doses rise: one of 120 orders is as extreme."""
    found = dosed([0.5, 0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5])

    assert found["rho"] == -1.0
    assert found["p"] == pytest.approx(1 / 120)
    assert found["implicated"]
    first = found["slices"][0]
    assert first["slice_id"] == "arithmetic"
    assert first["log_ratio"] == pytest.approx(math.log((1 / 15) / (1 / 5)))


def test_deficits_that_do_not_follow_the_doses_implicate_nothing():
    """A rising relation is no evidence for the claim."""
    found = dosed([0.1, 0.2, 0.3, 0.4, 0.5], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5])

    assert (found["rho"], found["p"], found["implicated"]) == (1.0, 1.0, False)


def test_equal_mixtures_say_nothing():
    """All doses are equal."""
    found = dosed([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5], [2, 4, 6, 8, 10])

    assert (found["rho"], found["p"]) == (None, None)
    assert "nothing can be said" in found["note"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"], "share": [1.0]}, "has the columns name, share"),
        ({"source": ["a", "a"], "share": [1.0, 2.0]}, "a source is there twice"),
        ({"source": ["a"], "share": [-1.0]}, ".* must be numbers of 0 or more"),
        ({"source": ["a"], "weight": ["much"]}, ".* must be numbers of 0 or more"),
    ],
)
def test_a_broken_mixture_is_refused(columns, message):
    """With the file's name."""
    with pytest.raises(BadInput, match=f"mix.csv: {message}"):
        read_mixture(pl.DataFrame(columns), where="mix.csv")

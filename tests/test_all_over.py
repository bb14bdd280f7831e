"""A run that is worse everywhere: no slice stands out, yet the table says where the loss lies."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from annotator.slices import find_slices
from annotator.slicing.all_over import holm

OPERATIONS = ["arithmetic", "deduction", "recall"]


def example(loss: float, items: int = 300, seed: int = 5):
    """Items of three operations in equal shares; the run loses `loss` on each, whatever it asks."""
    chance = np.random.default_rng(seed)
    ids = [f"q{n:03}" for n in range(items)]
    operations = [OPERATIONS[n % 3] for n in range(items)]
    labels = pl.DataFrame(
        {
            "record_id": ids,
            "status": "ok",
            "background_condition": "other",
            "task_type": "decide",
            "solving_operation": [[operation] for operation in operations],
            "output_constraint": "boolean",
            "taxonomy_version": "1",
        }
    )
    before = (chance.random(items) < 0.8).astype(float)
    after = before * (chance.random(items) >= loss)
    run = {
        name: pl.DataFrame({"item_id": ids, "run": name, "sample_index": 0, "score": score})
        for name, score in (("before", before), ("after", after))
    }
    return pl.DataFrame({"item_id": ids}), labels, run["after"], run["before"]


def test_an_even_loss_is_divided_over_the_primary_operations():
    """Every operation is listed, the summary says which question was answered, and all items are covered."""
    items, labels, after, before = example(loss=0.5)
    found = find_slices(items, labels, after, reference=before)
    assert found.summary["question"] == "worse_all_over"
    assert set(found.table["slice_id"]) == {"op=arithmetic", "op=deduction", "op=recall"}
    assert found.table["items"].to_list() == [100, 100, 100]
    assert found.table["confirmed"].all()
    assert found.summary["alpha"] == 0.05
    assert (found.table["p_adjusted"] <= 0.05).all()
    assert found.table["label_fragility"].is_null().all()


def test_a_run_that_lost_nothing_has_no_slices_by_either_question():
    """The second question is asked only if the run as a whole is worse."""
    items, labels, after, before = example(loss=0.0)
    found = find_slices(items, labels, after, reference=before)
    assert found.table.is_empty()
    assert found.summary["question"] == "worse_than_reference"


def test_a_loss_in_one_operation_is_still_found_by_contrast():
    """The first question goes first."""
    items, labels, after, before = example(loss=0.0)
    hit = [n % 3 == 1 for n in range(items.height)]
    worse = after.with_columns(score=pl.when(pl.Series(hit)).then(0.0).otherwise("score"))
    found = find_slices(items, labels, worse, reference=before)
    assert found.table["slice_id"].to_list() == ["op=deduction"]
    assert found.summary["question"] == "worse_than_reference"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p):
    """Adjusted p-values, for any number of tests and with ties."""
    assert np.allclose(holm(np.array(p)), multipletests(p, method="holm")[1])

"""The order in which passes are taken: what makes a larger budget keep all that a smaller one chose."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.ranking.selection import Candidates

ROW = st.tuples(
    st.sampled_from([0.01, 0.3, 0.31, 0.9, 1.0]),  # score
    st.integers(1, 40) | st.sampled_from([300, 9000]),  # tokens
    st.integers(0, 2),  # home
    st.none() | st.sampled_from(["x", "y"]),  # source
    st.none() | st.sampled_from(["h", "i", "j"]),  # host
)
ROWS = st.lists(ROW, min_size=1, max_size=25)
LAWS = settings(max_examples=150, deadline=None)


def candidates(rows, max_repeats=3, **caps):
    """Candidates of three slices."""
    columns = {"score": pl.Float64, "tokens": pl.Int64, "home": pl.Int64, "source": pl.String, "host": pl.String}
    table = pl.DataFrame(rows, schema=columns, orient="row")
    table = table.with_columns(pl.format("d{}", pl.int_range(pl.len())).alias("doc_id"))
    return Candidates(table, shares=np.array([0.6, 0.3, 0.1]), max_repeats=max_repeats, caps=caps)


@LAWS
@given(ROWS, st.integers(1, 500), st.integers(1, 30_000))
def test_a_longer_beginning_of_the_order_holds_every_shorter_one(rows, some, more):
    """However far it is worked out."""
    pool = candidates(rows)

    short, long = pool.order(some), pool.order(some + more)

    assert long.row[: len(short.row)].tolist() == short.row.tolist()
    assert long.whole or len(long.row) >= len(short.row)


@LAWS
@given(ROWS, st.integers(1, 2000), st.integers(0, 30_000), st.integers(1, 600), st.integers(1, 300))
def test_at_equal_caps_a_larger_budget_keeps_every_pass(rows, budget, more, of_source, of_host):
    """With caps on sources and on hosts, and without anything above budget or caps."""
    pool = candidates(rows, source=of_source, host=of_host)
    nothing = np.zeros(len(rows), dtype=bool)

    small, large = pool.passes_within(budget, nothing), pool.passes_within(budget + more, nothing)

    assert (large >= small).all()
    tokens = np.array([row[1] for row in rows])
    assert (small * tokens).sum() <= budget
    for place, limit in ((3, of_source), (4, of_host)):
        for value in {row[place] for row in rows} - {None}:
            mine = np.array([row[place] == value for row in rows])
            assert (large * tokens)[mine].sum() <= limit


@LAWS
@given(ROWS, st.integers(1, 3))
def test_with_budget_enough_every_pass_is_taken(rows, max_repeats):
    """Nothing is put off for ever."""
    pool = candidates(rows, max_repeats)

    assert pool.passes_within(10**9, np.zeros(len(rows), dtype=bool)).tolist() == [max_repeats] * len(rows)


def test_a_long_document_waits_until_it_is_a_quarter_of_what_its_queue_has_taken():
    """900 tokens wait for 2,700 of the queue, although the document is the best of all."""
    rows = [(1.0, 900, 0, None, None), *[(0.5, 100, 0, None, None)] * 40]

    order = candidates(rows, max_repeats=1).order(10_000)

    assert order.row.tolist().index(0) == 27


def test_a_cap_leaves_out_what_does_not_fit_and_takes_the_shorter_ones_behind():
    """A source near its cap is not closed."""
    rows = [(1.0, 60, 0, "x", None), (0.9, 50, 0, "x", None), (0.8, 40, 0, "x", None), (0.7, 50, 0, None, None)]

    passes = candidates(rows, max_repeats=1, source=100).passes_within(1000, np.zeros(4, dtype=bool))

    assert passes.tolist() == [1, 0, 1, 1]


def test_rejected_documents_leave_their_place_to_the_next():
    """As if they had never been there."""
    rows = [(1.0, 10, 0, None, None), (0.9, 10, 0, None, None), (0.8, 10, 0, None, None)]

    passes = candidates(rows, max_repeats=1).passes_within(20, np.array([True, False, False]))

    assert passes.tolist() == [0, 1, 1]

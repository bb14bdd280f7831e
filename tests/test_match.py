"""Slices against corpus categories."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import label, labels, slice_row, slices
from test_mapping import changed, rule

from annotator.categories import categories
from annotator.errors import BadInput, UnknownValue
from annotator.mapping import load_rules, parse_rules
from annotator.match import explain, match
from annotator.matching.profiles import profiles
from annotator.tables import MATCHES
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
RULES = load_rules()
DIVISIBILITY = slice_row("div", "divisibility_modular", "math.number_theory", task_type="calculate")


def matched(slice_rows, label_rows, rules=RULES, **options):
    """category_id -> (affinity, rule ids) of the first slice."""
    found = match(slices(*slice_rows), labels(*label_rows), rules=rules, taxonomy=TAXONOMY, **options)
    first = found.table.filter(pl.col("slice_id") == slice_rows[0]["slice_id"])
    return {row["category_id"]: (row["affinity"], row["rule_ids"]) for row in first.iter_rows(named=True)}


def test_the_same_values_on_all_axes_match_in_full():
    """Affinity 1, by the rule for that operation."""
    found = matched([DIVISIBILITY], [label("a", "divisibility_modular", "math.number_theory", "calculate")])

    assert found == {
        "op=divisibility_modular&bg=math.number_theory&task=calculate": (1.0, ["divisibility-modular"]),
    }


def test_near_values_pull_by_their_weights():
    """exp(.5 ln 1 + .3 ln .5 + .2 ln .7) for algebra that explains, worked out by hand."""
    found = matched([DIVISIBILITY], [label("a", "divisibility_modular", "math.algebra", "explain")])

    ((affinity, rule_ids),) = found.values()

    assert affinity == pytest.approx(math.exp(0.3 * math.log(0.5) + 0.2 * math.log(0.7)), abs=1e-6)
    assert rule_ids == ["divisibility-modular", "numbers-algebra", "work-out"]


def test_without_a_rule_for_the_operation_nothing_else_helps():
    """The operation is the gate."""
    assert matched([DIVISIBILITY], [label("a", "composition", "math.number_theory", "calculate")]) == {}


def test_the_output_form_changes_nothing():
    """Its weight is 0."""
    rows = [label("a", "divisibility_modular", "math.number_theory", "calculate")]

    assert matched([DIVISIBILITY | {"output_constraint": "option"}], rows) == matched([DIVISIBILITY], rows)


def test_a_slice_of_two_operations_wants_both():
    """A category that serves only one of them has half the strength on that axis."""
    both = slice_row("both", "deduction+composition")

    found = matched([both], [label("a", "deduction", "formal.logic", "prove")])

    assert found == {"op=deduction&bg=formal.logic&task=prove": (0.5, ["deduction"])}


def test_a_slice_without_an_operation_is_gated_by_its_background():
    """Unrelated subjects do not match; near ones do."""
    logic = slice_row("logic", None, "formal.logic")
    rows = [
        label("a", "recall", "formal.logic", "explain"),
        label("b", "recall", "math.combinatorics", "explain"),
        label("c", "recall", "culture.language", "explain"),
    ]

    assert matched([logic], rows) == {
        "op=recall&bg=formal.logic&task=explain": (1.0, ["same-bg"]),
        "op=recall&bg=math.combinatorics&task=explain": (0.4, ["logic-discrete"]),
    }


def test_facts_are_looked_for_in_their_own_subject_only():
    """The recall rule is bound to the background."""
    chemistry = slice_row("chem", "recall", "science.chemistry")
    rows = [label("a", "recall", "science.chemistry", "explain"), label("b", "recall", "science.physics", "explain")]

    assert list(matched([chemistry], rows)) == ["op=recall&bg=science.chemistry&task=explain"]


def test_a_document_counts_in_the_category_of_each_operation_and_once_in_each():
    """Two operations, two categories."""
    rows = [label("a", "arithmetic+comparison", "math.arithmetic", "calculate")]

    found = match(slices(slice_row("c", "comparison")), labels(*rows), rules=RULES, taxonomy=TAXONOMY)

    assert found.summary["categories"] == 2
    assert found.table["documents"].to_list() == [1]


def test_guarded_documents_are_not_supply():
    """Answer options are the form of a test."""
    rows = [label("a", "divisibility_modular", "math.number_theory", "calculate", output_constraint="option")]

    found = match(slices(DIVISIBILITY), labels(*rows), rules=RULES, taxonomy=TAXONOMY)

    assert found.table.height == 0
    assert found.unmatched[0]["reason"] == "no_documents"


def test_a_slice_without_counterpart_is_said_plainly_with_what_to_write():
    """Nothing to upsample is a result too."""
    rows = [label("a", "composition", "culture.arts_media", "compose")]
    wanted = slices(DIVISIBILITY, slice_row("odd", "other"), slice_row("form", None, output_constraint="option"))

    found = match(wanted, labels(*rows), rules=RULES, taxonomy=TAXONOMY)

    assert [(one["slice_id"], one["reason"]) for one in found.unmatched] == [
        ("div", "no_documents"),
        ("odd", "no_rule"),
        ("form", "no_pull"),
    ]
    assert "Reason with factors, remainders, digits, parity" in found.unmatched[0]["wanted"]
    assert "on math.number_theory" in found.unmatched[0]["wanted"]


def test_supply_gap_is_the_share_of_the_deficit_over_the_share_of_the_tokens():
    """Half of the points against a tenth of the tokens: five times short."""
    rows = [
        label("a", "divisibility_modular", "math.number_theory", "calculate"),
        label("b", "recall", "other", "narrate"),
    ]
    sizes = pl.DataFrame({"doc_id": ["a", "b"], "tokens": [100, 900]})

    found = match(
        slices(DIVISIBILITY, slice_row("odd", "other")), labels(*rows), rules=RULES, taxonomy=TAXONOMY, documents=sizes
    )

    assert found.table.select("tokens", "supply_gap").rows() == [(100, 5.0)]
    assert found.summary["scarce_slices"] == ["div"]


def test_weight_is_recoverable_points_times_affinity():
    """And the highest weight comes first within a slice."""
    rows = [
        label("a", "arithmetic", "math.arithmetic", "calculate"),
        label("b", "quantity_modelling", "math.arithmetic", "calculate"),
    ]
    wanted = slice_row("sums", "arithmetic", "math.arithmetic", recoverable_points=4.0)

    found = match(slices(wanted), labels(*rows), rules=RULES, taxonomy=TAXONOMY).table

    assert found.columns == list(MATCHES)
    assert found["affinity"].to_list() == pytest.approx([1.0, 0.5 ** (0.5 / 0.8)], abs=1e-6)
    assert found["weight"].to_list() == pytest.approx([4 * affinity for affinity in found["affinity"]])


def test_a_rule_may_ask_for_any_column_of_the_corpus():
    """The category then says so; documents without it form another category."""
    rules = parse_rules(
        changed(rule=[rule(slice={"solving_operation": ["other"]}, document={"source": ["textbooks"]}, strength=1.0)]),
        taxonomy=TAXONOMY,
        where="my.toml",
    )
    rows = [label("a", "recall", "other", "explain"), label("b", "recall", "other", "explain")]
    sources = pl.DataFrame({"doc_id": ["a", "b"], "source": ["textbooks", "web"]})

    found = matched([slice_row("odd", "other")], rows, rules=rules, documents=sources)

    assert found == {"op=recall&bg=other&task=explain&source=textbooks": (1.0, ["added"])}


def test_a_column_that_no_table_has_is_named():
    """A rule that looks at it could never be judged."""
    asked = parse_rules(changed(rule=[rule(document={"licence": ["CC0"]})]), taxonomy=TAXONOMY, where="my.toml")

    with pytest.raises(BadInput, match="a rule asks for column 'licence', which no table has"):
        matched([slice_row("odd", "other")], [label("a", "recall", "other", "explain")], rules=asked)


def test_numbers_are_compared_by_bounds():
    """quality = { min = 4 } holds for 4 and 5."""
    asked = rule(slice={"solving_operation": ["other"]}, document={"quality": {"min": 4}}, strength=1.0)
    rules = parse_rules(changed(rule=[asked]), taxonomy=TAXONOMY, where="my.toml")
    rows = [label(f"d{q}", "recall", "other", "explain", quality=q) for q in (3, 4, 5)]

    found = match(slices(slice_row("odd", "other")), labels(*rows), rules=rules, taxonomy=TAXONOMY).table

    assert found.select("category_id", "documents").rows() == [("op=recall&bg=other&task=explain&quality>=4", 2)]


def test_explain_shows_the_arithmetic():
    """Axis by axis, with the rule that gave each strength."""
    shown = explain(DIVISIBILITY, label("a", "divisibility_modular", "math.algebra", "calculate"), rules=RULES)

    (operation,) = shown["operations"]
    assert operation["arithmetic"] == "exp((0.5 ln 1 + 0.3 ln 0.5 + 0.2 ln 1) / 1) = 0.812"
    assert shown["affinity"] == pytest.approx(0.812252)
    assert shown["guard"] is None


def test_a_slice_of_another_taxonomy_is_refused():
    """With the nearest value that this one has."""
    with pytest.raises(UnknownValue, match="slice x: 'arithmetics' is not a value"):
        match(slices(slice_row("x", "arithmetics")), labels(), rules=RULES, taxonomy=TAXONOMY)


def test_two_labels_for_one_document_are_refused():
    """Which one holds cannot be known."""
    row = label("a", "recall", "other", "explain")

    with pytest.raises(BadInput, match="two labels for one document"):
        match(slices(DIVISIBILITY), labels(row, row), rules=RULES, taxonomy=TAXONOMY)


def test_failed_labels_have_no_category():
    """A failure is never a label."""
    rows = [label("a", "recall", "other", "explain", status="failed")]

    assert profiles(labels(*rows), rules=RULES).documents["profile"].to_list() == [None]


OPERATIONS = st.lists(
    st.sampled_from(TAXONOMY.values("solving_operation", "document")), min_size=1, max_size=3, unique=True
)
BACKGROUNDS = st.sampled_from(TAXONOMY.values("background_condition", "document"))
TASKS = st.sampled_from(TAXONOMY.values("task_type", "document"))


@settings(deadline=None)
@given(st.lists(st.tuples(OPERATIONS, BACKGROUNDS, TASKS), max_size=12), st.randoms())
def test_the_order_of_labels_never_changes_a_match(triples, random):
    """And every affinity lies in (0, 1]."""
    rows = [label(f"d{k}", "+".join(ops), background, task) for k, (ops, background, task) in enumerate(triples)]
    shuffled = random.sample(rows, len(rows))
    wanted = slices(DIVISIBILITY, slice_row("logic", None, "formal.logic"), slice_row("sums", "arithmetic"))

    first = match(wanted, labels(*rows), rules=RULES, taxonomy=TAXONOMY)
    second = match(wanted, labels(*shuffled), rules=RULES, taxonomy=TAXONOMY)

    assert first.table.equals(second.table)
    assert first.summary == second.summary
    assert first.table["affinity"].is_between(0, 1, closed="right").all()


def test_categories_shows_the_corpus_as_a_table():
    """Largest first, with mean grades and the gap against the matched slices."""
    rows = [
        label("a", "arithmetic", "math.arithmetic", "calculate", quality=4),
        label("b", "arithmetic", "math.arithmetic", "calculate", quality=2, exercise="none"),
        label("c", "recall", "other", "narrate", quality=3, exercise="none"),
    ]
    found = match(slices(slice_row("sums", "arithmetic")), labels(*rows), rules=RULES, taxonomy=TAXONOMY)

    table = categories(labels(*rows), rules=RULES, matches=found.table)

    assert table.select("category_id", "documents", "mean_quality", "exercised_share").rows() == [
        ("op=arithmetic&bg=math.arithmetic&task=calculate", 2, 3.0, 0.5),
        ("op=recall&bg=other&task=narrate", 1, 3.0, 0.0),
    ]
    assert table["supply_gap"].to_list() == [1.5, None]


def test_an_axis_that_a_slice_leaves_open_is_judged_by_the_mix_of_its_items():
    """Algebra items pull algebra before programming; without their labels both count alike."""
    algebra = slice_row("algebra", "algebraic_manipulation", item_ids=["i1", "i2", "i3"])
    rows = [
        label("a", "algebraic_manipulation", "math.algebra", "calculate"),
        label("b", "algebraic_manipulation", "computing.programming", "calculate"),
    ]
    item_rows = [label(f"i{k}", "algebraic_manipulation", "math.algebra", "calculate", kind="item") for k in (1, 2)]

    blind = matched([algebra], rows)
    found = matched([algebra], rows, item_labels=labels(*item_rows))

    assert {affinity for affinity, _ in blind.values()} == {1.0}
    assert found["op=algebraic_manipulation&bg=math.algebra&task=calculate"][0] == 1.0
    affinity, rule_ids = found["op=algebraic_manipulation&bg=computing.programming&task=calculate"]
    assert affinity == pytest.approx(0.15**0.3, abs=1e-6)
    assert rule_ids == ["algebraic-manipulation", "mix-bg", "mix-task"]


def test_categories_may_be_told_by_further_columns():
    """By source and grade, say; the supply gap is that of the category as matching knows it."""
    rows = [label(f"d{k}", "arithmetic", "math.arithmetic", "calculate", quality=3 + k % 2) for k in range(4)]
    sources = pl.DataFrame({"doc_id": ["d0", "d1", "d2", "d3"], "source": ["web", "web", "web", None]})
    found = match(slices(slice_row("sums", "arithmetic")), labels(*rows), rules=RULES, taxonomy=TAXONOMY)

    table = categories(labels(*rows), rules=RULES, documents=sources, matches=found.table, by=("source", "quality"))

    same = "op=arithmetic&bg=math.arithmetic&task=calculate"
    assert table.select("category_id", "documents", "supply_gap").rows() == [
        (f"{same}&source=web&quality=3", 2, 1.0),
        (f"{same}&quality=4", 1, 1.0),
        (f"{same}&source=web&quality=4", 1, 1.0),
    ]

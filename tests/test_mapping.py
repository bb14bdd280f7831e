"""The rule file: read and checked as exactly as a taxonomy."""

from __future__ import annotations

import copy
import tomllib

import pytest

from annotator.errors import BadInput, UnknownValue
from annotator.mapping import load_rules, parse_rules
from annotator.matching.rule_findings import check_rules
from annotator.resources import resource
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
SHIPPED = tomllib.loads(resource("schemas", "mapping.toml").read_text("utf-8"))


def changed(**more):
    """The shipped rules with some top-level keys replaced, or with entries appended to a list."""
    raw = copy.deepcopy(SHIPPED)
    for key, value in more.items():
        raw[key] = raw[key] + value if isinstance(value, list) and isinstance(raw.get(key), list) else value
    return raw


def rule(**more):
    """A valid rule, changed in some keys."""
    whole = {
        "id": "added",
        "slice": {"solving_operation": ["arithmetic"]},
        "document": {"solving_operation": ["comparison"]},
        "strength": 0.25,
        "direction": "exercises",
        "reason": "For a test.",
    }
    return {**whole, **more}


def test_every_operation_of_the_taxonomy_has_a_rule_or_a_reason_why_not():
    """No operation is forgotten when the taxonomy grows."""
    rules = load_rules()

    ruled = {operation for one in rules.rules for operation in one.slice.get("solving_operation", ())}

    assert set(TAXONOMY.values("solving_operation", "item")) == ruled | set(rules.no_counterpart)


def test_the_shipped_rules_have_no_findings():
    """No dead rule, no overlap, no benchmark's name."""
    assert check_rules(load_rules(), taxonomy=TAXONOMY) == []


def test_the_output_form_of_a_slice_pulls_no_text():
    """A slice that fails on multiple choice does not need text that looks like multiple choice."""
    assert load_rules().weights["output_constraint"] == 0


def test_an_unknown_value_is_named_with_file_rule_and_the_nearest_value():
    """What, where and how to mend it, in one line."""
    raw = changed(rule=[rule(document={"task_type": ["calculation"]})])

    with pytest.raises(UnknownValue) as caught:
        parse_rules(raw, taxonomy=TAXONOMY, where="my.toml")

    assert str(caught.value) == (
        "my.toml rule 'added' document: 'calculation' is not a value of task_type. Did you mean 'calculate'?"
    )
    assert caught.value.exit_code == 2


def test_a_value_of_the_document_side_is_refused_on_the_slice_side():
    """`specify` describes documents only; no item can be labelled with it."""
    with pytest.raises(UnknownValue, match="'specify' is not a value of task_type"):
        parse_rules(changed(rule=[rule(slice={"task_type": ["specify"]})]), taxonomy=TAXONOMY, where="my.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.7}, "strength 0.7 is not one of 1, 0.5, 0.25"),
        ({"direction": "teach"}, "'teach' is not a direction. Did you mean 'teaches'?"),
        ({"reason": " "}, "the reason is missing"),
        ({"slice": {}}, "the slice side is missing"),
        ({"document": {}}, "the document side is missing"),
        ({"documents": {}}, "unknown key 'documents'. Did you mean 'document'?"),
        ({"id": "Two Words"}, "'Two Words' is not an id"),
        ({"id": "recall"}, "id 'recall' is used twice"),
        ({"bound": ["background"]}, "Did you mean 'background_condition'?"),
        ({"document": {"quality": ["6"]}}, "'6' is not a grade of quality"),
        ({"document": {"task_type": {"min": 1}}}, "task_type takes a list of values"),
        ({"document": {"dewey": {"prefix": []}}}, "dewey needs a list of values"),
    ],
)
def test_a_broken_rule_is_refused_with_a_remedy(change, message):
    """Each fault has its own message."""
    with pytest.raises(BadInput) as caught:
        parse_rules(changed(rule=[rule(**change)]), taxonomy=TAXONOMY, where="my.toml")

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_rule_file_and_broken_toml_are_bad_input(tmp_path):
    """Exit 2, not a traceback."""
    broken = tmp_path / "broken.toml"
    broken.write_text("version = ", "utf-8")

    with pytest.raises(BadInput, match="no such rule file"):
        load_rules(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="not valid TOML"):
        load_rules(broken)


def test_any_edit_of_the_rules_changes_their_fingerprint():
    """A plan can be traced to the very rules that made it."""
    edited = changed(rule=[rule()])

    assert (
        parse_rules(edited, taxonomy=TAXONOMY, where="my.toml").fingerprint
        != parse_rules(SHIPPED, taxonomy=TAXONOMY, where="my.toml").fingerprint
    )


def test_of_several_near_groups_the_strongest_counts():
    """number_theory and algebra are both mathematics (0.35) and near each other (0.5)."""
    rules = load_rules()

    assert rules.likeness("background_condition", "math.number_theory", "math.algebra") == (0.5, "numbers-algebra")
    assert rules.likeness("background_condition", "math.number_theory", "math.geometry") == (0.35, "mathematics")
    assert rules.likeness("background_condition", "math.number_theory", "culture.language") == (0.15, None)
    assert rules.likeness("background_condition", "math.algebra", "math.algebra") == (1.0, None)


def findings(**more):
    """kind and rule of the findings about the shipped rules with some entries added."""
    rules = parse_rules(changed(**more), taxonomy=TAXONOMY, where="my.toml")
    return [(finding.kind, finding.rule) for finding in check_rules(rules, taxonomy=TAXONOMY)]


def test_check_finds_a_benchmarks_name_inside_a_rule():
    """A rule that needs one trains on the test; `drop` as a plain word does not."""
    assert findings(rule=[rule(reason="Looks like GSM8K.")]) == [("benchmark_name", "added")]
    assert findings(rule=[rule(document={"source": ["mmlu-train"]})]) == [("benchmark_name", "added")]
    assert findings(rule=[rule(reason="Prices that drop.")]) == []


def test_check_finds_a_rule_that_a_wider_one_makes_idle():
    """Narrower and no stronger: it can never decide anything."""
    narrow = rule(document={"solving_operation": ["arithmetic"], "task_type": ["calculate"]}, strength=0.5)

    assert ("dead_rule", "added") in findings(rule=[narrow])


def test_check_finds_two_rules_for_one_link():
    """The same values on both sides at two strengths."""
    assert findings(rule=[rule(), rule(id="again", strength=0.5, bound=["task_type"])]) == []
    assert ("overlap", "again") in findings(rule=[rule(), rule(id="again", strength=0.5)])


def test_check_finds_an_operation_without_a_rule():
    """It must be said why no document is looked for."""
    raw = {**changed(), "no_counterpart": []}
    rules = parse_rules(raw, taxonomy=TAXONOMY, where="my.toml")

    assert [(f.kind, f.rule) for f in check_rules(rules, taxonomy=TAXONOMY)] == [("no_rule", "other")]


def test_check_finds_near_values_that_do_not_close():
    """a ~ b and b ~ c at 0.9 make a ~ c at 0.15 doubtful."""

    def near(name, *values):
        return {"id": name, "axis": "background_condition", "values": list(values), "strength": 0.9}

    added = [near("ab", "math.algebra", "culture.language"), near("bc", "culture.language", "science.physics")]

    assert ("near_cycle", "culture.language, math.algebra, science.physics") in findings(near=added)


def test_a_column_of_codes_is_never_compared_as_a_whole():
    """It is told by the beginnings that rules name, and by nothing else."""
    added = [
        rule(document={"dewey": {"prefix": ["512.7"]}}),
        rule(id="again", document={"dewey": ["512.7"]}),
    ]

    with pytest.raises(BadInput, match="dewey is a column of codes"):
        parse_rules(changed(rule=added), taxonomy=TAXONOMY, where="my.toml")

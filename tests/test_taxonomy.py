"""The taxonomy file: what is accepted, what is refused and how it is said."""

from __future__ import annotations

import pytest

from annotator.errors import BadInput, UnknownValue
from annotator.resources import resource
from annotator.taxonomy import AXES, load_taxonomy


@pytest.fixture
def edited(tmp_path):
    """Writes a copy of the shipped taxonomy with one text replaced, and gives its path."""

    def edit(old: str, new: str):
        text = resource("schemas", "taxonomy.toml").read_text("utf-8")
        assert old in text
        path = tmp_path / "taxonomy.toml"
        path.write_text(text.replace(old, new, 1), "utf-8")
        return path

    return edit


def test_the_shipped_taxonomy_has_the_four_axes_and_a_version():
    """Values keep the order of the file; `other` comes last on every axis."""
    taxonomy = load_taxonomy()
    assert tuple(taxonomy.axes) == AXES
    assert taxonomy.version == "1"
    for axis in AXES:
        assert taxonomy.values(axis, "item")[-1] == "other"


def test_a_value_with_one_side_is_used_on_that_side_alone():
    """`specify` is something that documents do."""
    taxonomy = load_taxonomy()
    assert "specify" in taxonomy.values("task_type", "document")
    assert "specify" not in taxonomy.values("task_type", "item")
    assert "specify" in taxonomy.all_values("task_type")


def test_a_rule_holds_on_both_sides_unless_each_has_its_own(edited):
    """Multiple choice says nothing about documents, so their judge does not read of it."""
    taxonomy = load_taxonomy()
    assert "Multiple choice" in taxonomy.axes["task_type"].rule["item"]
    assert "Multiple choice" not in taxonomy.axes["task_type"].rule["document"]
    old = f'rule.item = "{taxonomy.axes["output_constraint"].rule["item"]}"\nrule.document = '
    shared = load_taxonomy(edited(old, "rule = ")).axes["output_constraint"].rule
    assert shared["item"] == shared["document"] == taxonomy.axes["output_constraint"].rule["document"]


def test_any_edited_word_changes_the_fingerprint(edited):
    """Labels made under another codebook must not be mixed with these."""
    assert load_taxonomy(edited("Plane, solid", "Flat, solid")).fingerprint != load_taxonomy().fingerprint


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[task_type]\nquestion", "[task_type]\nqestion", "unknown key 'qestion'. Did you mean 'question'?"),
        ("[task_type]", "[task_typ]", "Did you mean 'task_type'?"),
        ('"math.geometry" =', '"math geometry" =', "'math geometry' is not a valid value name"),
        ('version = "1"', "version = 1", '"version" must be a non-empty string'),
        ("prove = { item =", "prove = { itm =", "unknown key 'itm'. Did you mean 'item'?"),
        ('recall = "Bring', 'recall = "" # "Bring', "the meaning of 'recall' is missing"),
        ("[background_condition]", "[background_condition", "not valid TOML"),
        ('rule.item = "Choose', 'rule.itm = "Choose', '[background_condition] needs a "rule"'),
    ],
)
def test_a_typo_is_named_with_its_file_and_a_remedy(edited, old, new, said):
    """One line: where, what, how to mend it."""
    path = edited(old, new)
    with pytest.raises(BadInput) as caught:
        load_taxonomy(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_user_error(tmp_path):
    """No traceback for a wrong path."""
    with pytest.raises(BadInput, match="no such taxonomy file"):
        load_taxonomy(tmp_path / "none.toml")


def test_an_unknown_value_suggests_the_nearest_one():
    """The error carries axis and value for programs, and a hint for people."""
    with pytest.raises(UnknownValue, match="Did you mean 'calculate'") as caught:
        load_taxonomy().check("task_type", "calculation", where="items.jsonl:41 (gsm8k/17)", kind="item")
    assert caught.value.axis == "task_type"
    assert str(caught.value).startswith("items.jsonl:41 (gsm8k/17): 'calculation' is not a value of task_type.")

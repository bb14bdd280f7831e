"""Coverage of the codebook by labels, and differences between two codebooks."""

import copy
import tomllib

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from annotator.cli import application
from annotator.coverage import coverage
from annotator.errors import BadInput
from annotator.resources import resource
from annotator.taxonomy import load_taxonomy, parse_taxonomy
from annotator.taxonomy_diff import taxonomy_diff

TAXONOMY = load_taxonomy()
RAW = tomllib.loads(resource("schemas", "taxonomy.toml").read_text("utf-8"))


def labels(tasks, constraints=None, *, kind="item", **columns):
    """Labels with these task types and output constraints."""
    table = {
        "record_id": [f"r{number:03d}" for number in range(len(tasks))],
        "kind": kind,
        "background_condition": "formal.logic",
        "task_type": tasks,
        "solving_operation": [["deduction", "case_analysis"]] * len(tasks),
        "output_constraint": constraints or ["number"] * len(tasks),
    }
    return pl.DataFrame(table | columns)


def edited(change):
    """The shipped taxonomy with an edit, under another version."""
    raw = copy.deepcopy(RAW) | {"version": "next"}
    change(raw)
    return parse_taxonomy(raw, where="edited.toml")


def findings(found, kind):
    return [(each["axis"], each["value"]) for each in found["findings"] if each["kind"] == kind]


def test_entropy_and_shares_of_an_axis():
    """Half, a quarter, a quarter: 1.5 bits; used once, twice or not at all."""
    found = coverage(labels(["prove", "prove", "decide", "other"]), TAXONOMY)
    axis = found["kinds"]["item"]["axes"]["task_type"]

    assert axis["entropy_bits"] == 1.5
    assert axis["defined"] == len(TAXONOMY.values("task_type", "item"))
    assert axis["used"] == 3
    assert axis["other_share"] == 0.25
    assert axis["values"][0] == {"value": "prove", "records": 2, "share": 0.5}
    assert "calculate" in axis["empty"]


def test_each_operation_of_a_record_counts():
    """Two operations on every record: both have the share 1."""
    axis = coverage(labels(["prove"] * 4), TAXONOMY)["kinds"]["item"]["axes"]["solving_operation"]

    assert [(each["value"], each["share"]) for each in axis["values"]] == [("case_analysis", 1), ("deduction", 1)]


def test_what_calls_for_a_change_of_the_codebook_is_found():
    """Too many "other", a value that holds most, values that nobody used, values that nobody defined."""
    found = coverage(labels(["prove"] * 6 + ["other"] * 2 + ["ponder", "decide"]), TAXONOMY)

    assert ("task_type", "other") in findings(found, "other_share")
    assert ("task_type", "prove") in findings(found, "crowded_value")
    assert ("task_type", "calculate") in findings(found, "empty_value")
    assert findings(found, "unknown_value") == [("task_type", "ponder")]


def test_axes_that_tell_the_same_are_found():
    """A constraint that follows from the task has NMI 1; an independent one has what chance gives."""
    tasks = ["prove", "decide", "calculate", "explain"] * 50
    told = {"prove": "proof", "decide": "boolean", "calculate": "number", "explain": "prose"}
    same = coverage(labels(tasks, [told[task] for task in tasks]), TAXONOMY)
    free = coverage(labels(tasks, [list(told.values())[number // 4 % 4] for number in range(200)]), TAXONOMY)

    def dependence(found):
        pairs = found["kinds"]["item"]["dependence"]
        return next(pair for pair in pairs if pair["axes"] == ["task_type", "output_constraint"])

    assert dependence(same)["nmi"] == 1
    assert dependence(same)["by_chance"] < 0.1
    assert findings(same, "dependent_axes") == [("task_type", "output_constraint")]
    assert dependence(free)["nmi"] < 0.01
    assert findings(free, "dependent_axes") == []


def test_items_and_documents_are_told_apart_and_failed_rows_left_out():
    """Each side has its own values; grades exist for documents only."""
    items = labels(["prove", "decide"], status=["ok", "failed"])
    documents = labels(["explain"], kind="document", status="ok", quality=4, exercise="central")
    found = coverage(pl.concat([items, documents], how="diagonal_relaxed"), TAXONOMY)

    assert found["failed"] == 1
    assert found["kinds"]["item"]["records"] == 1
    assert "quality" not in found["kinds"]["item"]["axes"]
    assert found["kinds"]["document"]["axes"]["quality"]["values"] == [{"value": "4", "records": 1, "share": 1}]


def test_row_order_changes_nothing():
    """Shuffles for the chance level are seeded by content."""
    table = labels(["prove", "decide", "other"] * 20, ["number", "proof"] * 30)

    assert coverage(table.reverse(), TAXONOMY) == coverage(table, TAXONOMY)


def test_labels_of_another_version_are_refused():
    """Coverage against the wrong codebook would call every new value unknown."""
    with pytest.raises(BadInput, match="made with taxonomy version '0', not '1'"):
        coverage(labels(["prove"], taxonomy_version="0"), TAXONOMY)
    with pytest.raises(BadInput, match="no record has a label"):
        coverage(labels(["prove"], status="failed"), TAXONOMY)


def test_equal_taxonomies_have_no_difference():
    """Loading the same file twice."""
    found = taxonomy_diff(TAXONOMY, load_taxonomy())

    assert found["same"]
    assert (found["axes"], found["grades"], found["tiebreaks"]) == ({}, {}, {})
    assert found["note"] == "The two are the same."


def test_added_removed_renamed_and_changed_values_are_told_with_their_side():
    """A value renamed with its meaning kept is one change, not two."""

    def change(raw):
        tasks = raw["task_type"]["values"]
        tasks["compute"] = tasks.pop("calculate")
        tasks["ponder"] = {"document": "Thinks aloud without an end."}
        del tasks["order"]
        tasks["prove"] = {"item": "Show it.", "document": tasks["prove"]["document"]}

    found = taxonomy_diff(TAXONOMY, edited(change))["axes"]["task_type"]

    assert found["renamed"] == [{"before": "calculate", "after": "compute", "kinds": ["document", "item"]}]
    assert found["added"] == [{"value": "ponder", "kinds": ["document"]}]
    assert found["removed"] == [{"value": "order", "kinds": ["document", "item"]}]
    assert [(each["value"], each["kind"], each["after"]) for each in found["changed"]] == [
        ("prove", "item", "Show it.")
    ]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda raw: raw["task_type"]["values"].pop("order"), "migrate them, or label again"),
        (lambda raw: raw["task_type"]["values"].update(prove="Show it."), "label a sample again and compare"),
        (lambda raw: raw["task_type"]["values"].update(ponder="Think."), "new ones are missing from old labels"),
        (lambda raw: raw["task_type"].update(question="What?"), "still exist and mean the same"),
        (lambda raw: raw["grades"]["quality"]["values"].update({"1": "Bad."}), "label a sample again and compare"),
        (lambda raw: raw["tiebreaks"]["item"].append("When in doubt, out."), "still exist and mean the same"),
        (lambda raw: raw.update(version=TAXONOMY.version, task_type=RAW["task_type"]), "The two are the same"),
        (lambda raw: raw["task_type"]["values"].update(ponder="Think.") or raw.update(version="1"), "another version"),
        (lambda raw: None, "Only the version differs"),
    ],
)
def test_the_note_says_what_becomes_of_old_labels(change, note):
    """From "nothing" to "label again"."""
    assert note in taxonomy_diff(TAXONOMY, edited(change))["note"]


def test_the_commands_print_and_give_json(tmp_path):
    """`taxonomy coverage` on two tables, `taxonomy diff` against the shipped codebook."""
    labels(["prove", "ponder"]).write_ndjson(tmp_path / "items.jsonl")
    labels(["explain"], kind="document").write_parquet(tmp_path / "documents.parquet")
    words = resource("schemas", "taxonomy.toml").read_text("utf-8").replace('version = "1"', 'version = "0"')
    (tmp_path / "old.toml").write_text(words.replace("calculate = {", "compute = {"))
    both = [str(tmp_path / "items.jsonl"), str(tmp_path / "documents.parquet")]

    shown = CliRunner().invoke(application, ["taxonomy", "coverage", *both])
    as_json = CliRunner().invoke(application, ["taxonomy", "coverage", *both, "--json"])
    difference = CliRunner().invoke(application, ["taxonomy", "diff", str(tmp_path / "old.toml")])

    assert shown.exit_code == as_json.exit_code == difference.exit_code == 0
    assert "'ponder' is used but not defined for items: migrate these labels." in shown.output
    assert set(orjson.loads(as_json.output)["kinds"]) == {"item", "document"}
    assert "version 0 -> 1" in difference.output
    assert "> task_type compute -> calculate (document, item)" in difference.output

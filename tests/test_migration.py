"""Labels of an old codebook carried to a new one, and what a check of a codebook finds."""

from __future__ import annotations

import copy
import tomllib

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from annotator.cli import application
from annotator.errors import BadInput, UnknownValue
from annotator.judges.scripted import ScriptedJudge
from annotator.label import label
from annotator.migration import migrate, read_mapping
from annotator.resources import resource
from annotator.tables import LABELS
from annotator.taxonomy import load_taxonomy, parse_taxonomy
from annotator.taxonomy_check import taxonomy_check

RAW = tomllib.loads(resource("schemas", "taxonomy.toml").read_text("utf-8"))
MAPPING = """
from = "1"
to = "2"
[task_type]
calculate = "compute"
order = ["sort", "rank"]
[solving_operation]
contradiction_extremal = "deduction"
[quality]
5 = "4"
"""


def edited(change):
    raw = copy.deepcopy(RAW) | {"version": "2"}
    change(raw)
    return parse_taxonomy(raw, where="edited.toml")


def next_version():
    """`calculate` renamed, `order` split, one operation merged into another."""

    def change(raw):
        tasks = raw["task_type"]["values"]
        tasks["compute"] = tasks.pop("calculate")
        tasks["sort"] = tasks["rank"] = tasks.pop("order")
        del raw["solving_operation"]["values"]["contradiction_extremal"]

    return edited(change)


def labels(tasks, operations=None, **columns):
    rows = [
        {
            "record_id": f"r{number}",
            "kind": "item",
            "status": "ok",
            "background_condition": "formal.logic",
            "task_type": task,
            "solving_operation": (operations or [["deduction"]] * len(tasks))[number],
            "output_constraint": "number",
            "evidence": "a quote",
            "taxonomy_version": "1",
        }
        for number, task in enumerate(tasks)
    ]
    return pl.DataFrame(rows, schema=LABELS).with_columns(**columns)


@pytest.fixture
def mapping(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text(MAPPING)
    return path


def test_renamed_and_merged_values_move_and_split_ones_are_to_be_labelled_again(mapping):
    """What the mapping does not name stays; two operations that became one are named once."""
    after = next_version()
    operations = [["deduction"], ["deduction", "contradiction_extremal"], ["contradiction_extremal"], ["deduction"]]
    found = migrate(labels(["calculate", "prove", "prove", "order"], operations), read_mapping(mapping, after), after)

    table = found.labels
    assert table["task_type"].to_list() == ["compute", "prove", "prove", None]
    assert table["solving_operation"].to_list() == [["deduction"], ["deduction"], ["deduction"], None]
    assert table["status"].to_list() == ["ok", "ok", "ok", "failed"]
    assert table["error"].to_list() == [None, None, None, "value_split"]
    assert table["evidence"].to_list() == ["a quote"] * 3 + [None]
    assert table["taxonomy_version"].unique().to_list() == ["2"]
    assert (found.moved, found.relabel) == ({"task_type": 1, "solving_operation": 2}, 1)


def test_grades_move_as_numbers(mapping):
    """TOML keys are text, the quality of a label is a number."""
    after = next_version()
    table = labels(["prove", "prove"], kind=pl.lit("document"), exercise=pl.lit("central"), quality=pl.Series([5, 2]))

    assert migrate(table, read_mapping(mapping, after), after).labels["quality"].to_list() == [4, 2]


def test_values_without_a_place_are_all_listed(mapping):
    """Nothing is guessed: each lost value is named with its side and the number of its rows."""
    after = edited(lambda raw: [raw["task_type"]["values"].pop(name) for name in ("prove", "trace")] and None)
    mapping.write_text('from = "1"\nto = "2"\n[task_type]\ncalculate = "specify"\n')
    with pytest.raises(BadInput) as caught:
        migrate(labels(["prove", "prove", "trace", "calculate"]), read_mapping(mapping, after), after)

    for told in ("task_type prove (items, 2)", "task_type trace (items, 1)", "calculate -> specify (items, 1)"):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from = 1", 'no version "from"'),
        ('from = "1"\nto = "3"', "leads to version '3', the taxonomy is '2'"),
        ('from = "1"\nto = "2"\n[task_typ]\na = "b"', "Did you mean 'task_type'"),
        ('from = "1"\nto = "2"\n[task_type]\ncalculate = "computed"', "Did you mean 'compute'"),
        ('from = "1"\nto = "2"\n[task_type]\ncalculate = []', "'calculate' leads nowhere"),
        ('from = "1"\nto = "2"\ntask_type = "a"', "not a table of values"),
        ("from =", "not valid TOML"),
    ],
)
def test_a_mapping_that_cannot_be_followed_is_refused(mapping, text, message):
    """One line, with the remedy."""
    mapping.write_text(text)
    with pytest.raises((BadInput, UnknownValue), match=message):
        read_mapping(mapping, next_version())


def test_labels_of_another_version_are_refused(mapping):
    """A mapping holds for the version that it names."""
    after = next_version()
    table = labels(["prove"], taxonomy_version=pl.lit("0"))
    with pytest.raises(BadInput, match="of version '0', not '1'"):
        migrate(table, read_mapping(mapping, after), after)


def test_the_command_writes_a_table_whose_split_rows_are_labelled_again(tmp_path, mapping):
    """`taxonomy migrate`, then `label --retry-failed` under the new codebook takes up the split rows alone."""
    text = resource("schemas", "taxonomy.toml").read_text("utf-8").replace('version = "1"', 'version = "2"')
    (tmp_path / "new.toml").write_text(text)
    mapping.write_text('from = "1"\nto = "2"\n[task_type]\norder = ["order", "decide"]\n')
    labels(["prove", "order"]).write_parquet(tmp_path / "old.parquet")
    command = ["taxonomy", "migrate", str(tmp_path / "old.parquet"), "--mapping", str(mapping)]
    command += ["--taxonomy", str(tmp_path / "new.toml"), "-o", str(tmp_path / "out.parquet"), "--json"]
    result = CliRunner().invoke(application, command, standalone_mode=False)

    assert (result.return_value, orjson.loads(result.stdout)["relabel"]) == (1, 1)
    out, items = tmp_path / "out.parquet", tmp_path / "items.jsonl"
    assert pl.read_parquet(out)["status"].to_list() == ["ok", "failed"]
    items.write_text('{"id": "r0", "prompt": "Prove it."}\n{"id": "r1", "prompt": "Sort 3, 1."}\n')
    answer = labels(["decide"]).select("background_condition", "task_type", "solving_operation", "output_constraint")
    judge = ScriptedJudge(lambda request: answer.row(0, named=True) | {"evidence": ""},
                          taxonomy=load_taxonomy(tmp_path / "new.toml"))  # fmt: skip
    label([items], out=out, judge=judge, cache_dir=None, retry_failed=True)
    assert [request.record_id for request in judge.asked] == ["r1"]
    assert pl.read_parquet(out)["task_type"].to_list() == ["prove", "decide"]


def test_a_check_finds_what_an_author_should_look_at():
    """The same meaning twice, names alike, definitions alike, and names that no axis has."""

    def change(raw):
        tasks = raw["task_type"]["values"]
        tasks["compute"] = tasks["calculate"]
        tasks["proves"] = "Something else entirely."
        tasks["grade_essay"] = "Judge the quality of an essay that a pupil wrote for school."
        tasks["mark_essay"] = "Judge the quality of an essay that a student wrote for school."
        raw["tiebreaks"]["item"].append("Anything else: state_trackin.")

    found = [(each["kind"], each["values"]) for each in taxonomy_check(edited(change))]

    assert ("duplicate", ["calculate", "compute"]) in found
    assert ("duplicate", ["prove", "proves"]) in found
    assert ("overlap", ["grade_essay", "mark_essay"]) in found
    assert ("undefined", ["state_trackin"]) in found
    assert taxonomy_check(load_taxonomy()) == []


def test_a_check_against_labels_finds_unused_and_undefined_values(tmp_path):
    """`taxonomy check --labels` tells both."""
    labels(["prove", "ponder"]).write_parquet(tmp_path / "l.parquet")
    command = ["taxonomy", "check", "--labels", str(tmp_path / "l.parquet"), "--json"]
    findings = orjson.loads(CliRunner().invoke(application, command).stdout)["findings"]

    assert [each["values"] for each in findings if each["kind"] == "undefined"] == [["ponder"]]
    assert ["calculate"] in [each["values"] for each in findings if each["kind"] == "unused"]

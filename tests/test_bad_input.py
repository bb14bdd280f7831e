"""A user's mistake ends in exit code 2 and one line that says where, what, and how to mend it. Through the real CLI."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from command_line import annotator, refused

from annotator.budget import Budget
from annotator.cli.label import command as label_command
from annotator.errors import BadInput
from annotator.judges.scripted import ScriptedJudge
from annotator.label import estimate
from annotator.label import label as label_here
from annotator.readers import find_shards
from annotator.resources import resource
from annotator.settings import load_settings
from annotator.tables import LABELS, SLICES, read_table, write_probe, write_table

ITEMS = [{"id": f"q{n}", "question": f"What is {n} times {n + 1}?", "answer": str(n * (n + 1))} for n in range(4)]
SAMPLES = [{"item_id": f"q{n}", "run": "a", "response": str(n), "score": n % 2} for n in range(4)]


def jsonl(path: Path, rows: list[dict]) -> Path:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def label(folder: Path, *inputs: str | Path, out: str | Path = "labels.parquet") -> subprocess.CompletedProcess:
    """Labels items with the embedded judge."""
    return annotator("label", *inputs, "-o", out, "--kind", "item", cwd=folder)


def test_a_missing_file_is_named(tmp_path):
    """The path as the user gave it."""
    refused(label(tmp_path, "none.jsonl"), "none.jsonl", "no such file")


def test_a_csv_without_an_id_column_names_the_columns_it_has(tmp_path):
    """And how to say which column is meant."""
    (tmp_path / "items.csv").write_text("question,answer\nWhat is 1+1?,2\n")
    refused(label(tmp_path, "items.csv"), "items.csv", "item_id", "--column")


def test_duplicate_ids_are_named_by_file_and_line(tmp_path):
    """Both places, since one of them has to go."""
    jsonl(tmp_path / "items.jsonl", [*ITEMS, ITEMS[1]])
    refused(label(tmp_path, "items.jsonl"), "items.jsonl:5", "q1", "items.jsonl:2")


def test_a_taxonomy_with_a_typo_is_refused_with_a_suggestion(tmp_path):
    """Before any record is labelled."""
    jsonl(tmp_path / "items.jsonl", ITEMS)
    text = resource("schemas", "taxonomy.toml").read_text("utf-8").replace("[output_constraint]", "[output_constrant]")
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    done = annotator(
        "label", "items.jsonl", "-o", "l.parquet", "--kind", "item", "--taxonomy", "mine.toml", cwd=tmp_path
    )
    refused(done, "mine.toml", "'output_constrant'", "Did you mean 'output_constraint'?")


def test_a_rules_file_that_names_an_unknown_value_is_refused_with_the_rule(tmp_path):
    """The rule's id, the value, and the nearest value that exists."""
    text = resource("schemas", "mapping.toml").read_text("utf-8").replace('"quantity_modelling"', '"quantity_modeling"')
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    done = annotator("rules", "check", "mine.toml", cwd=tmp_path)
    refused(done, "mine.toml", "'quantity_modeling'", "Did you mean 'quantity_modelling'?")


def test_samples_that_belong_to_no_item_are_refused(tmp_path):
    """Comparing two id styles by example helps to see the difference."""
    jsonl(tmp_path / "items.jsonl", ITEMS)
    jsonl(tmp_path / "samples.jsonl", [row | {"item_id": f"other/{row['item_id']}"} for row in SAMPLES])
    assert label(tmp_path, "items.jsonl").returncode == 0
    done = annotator(
        "slices", "--items", "items.jsonl", "--labels", "labels.parquet", "--samples", "samples.jsonl",
        "-o", "slices.parquet", cwd=tmp_path,
    )  # fmt: skip
    refused(done, "samples", "other/q0")


@pytest.mark.parametrize("out", ["file/labels.parquet", "labels.xlsx"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, out):
    """A file in place of a folder, or a format that does not exist."""
    jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "file").write_text("")
    refused(label(tmp_path, "items.jsonl", out=out), out.split("/")[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lable"], "Did you mean 'label'?"),
        (["label", "x.jsonl", "-o", "l.parquet", "--kind", "thing"], "'thing' is not one of"),
        (["label", "x.jsonl", "-o", "l.parquet", "--kind", "item", "--judge", "opnai:gpt"], "opnai"),
        (["label", "x.jsonl", "-o", "l.parquet", "--kind", "item", "--column", "id"], "NAME=THEIRS"),
        (["run", "none.toml"], "no such settings file"),
    ],
)
def test_a_mistyped_command_is_answered_in_one_line(tmp_path, arguments, said):
    """With the next thing to try."""
    jsonl(tmp_path / "x.jsonl", ITEMS)
    refused(annotator(*arguments, cwd=tmp_path), said)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_a_name_with_the_characters_of_patterns_is_a_name(tmp_path, ending):
    """Brackets and stars in paths are no patterns when the table is written, counted or read back."""
    jsonl(tmp_path / "items.jsonl", ITEMS)
    first, second = f"a [x]*.{ending}", f"b [y].{ending}"
    assert label(tmp_path, "items.jsonl", out=first).returncode == 0
    pl.DataFrame(ITEMS).write_parquet(tmp_path / "in [z]*.parquet")
    done = label(tmp_path, "in [z]*.parquet", out=second)
    assert (done.returncode, done.stderr) == (0, "")
    table = read_table(tmp_path / second, LABELS, made_by="annotator label")
    assert table["record_id"].to_list() == ["q0", "q1", "q2", "q3"]


def test_a_damaged_parquet_file_is_said_in_one_line(tmp_path):
    """The thread that counts rows for the progress bar leaves the complaint to the reader."""
    (tmp_path / "items.parquet").write_bytes(b"PAR1 and nothing that follows from it")
    refused(label(tmp_path, "items.parquet"), "items.parquet", "cannot be read as parquet")


def test_an_output_that_is_an_input_is_refused(tmp_path):
    """`label x -o x` would replace the items by their labels."""
    before = jsonl(tmp_path / "items.jsonl", ITEMS).read_bytes()
    (tmp_path / "link.jsonl").symlink_to("items.jsonl")
    refused(label(tmp_path, "items.jsonl", out="items.jsonl"), "items.jsonl", "one of the inputs")
    refused(label(tmp_path, "*.jsonl", out="link.jsonl"), "link.jsonl", "one of the inputs")
    assert (tmp_path / "items.jsonl").read_bytes() == before


def test_tables_of_two_taxonomy_versions_are_not_joined(tmp_path):
    """Nor are item labels taken for document labels."""
    jsonl(tmp_path / "items.jsonl", ITEMS)
    jsonl(tmp_path / "docs.jsonl", [{"doc_id": "d1", "text": "Two and two are four, and so on."}])
    text = resource("schemas", "taxonomy.toml").read_text("utf-8").replace('version = "1"', 'version = "2"', 1)
    (tmp_path / "two.toml").write_text(text, "utf-8")
    assert label(tmp_path, "items.jsonl").returncode == 0
    slices = pl.DataFrame(schema=SLICES)
    write_table(slices, tmp_path / "slices.parquet", made_from={"taxonomy_version": "2"})
    matching = ["match", "--slices", "slices.parquet", "--document-labels", "labels.parquet", "-o", "matches.parquet"]
    refused(annotator(*matching, cwd=tmp_path), "labels.parquet", "labels of items", "--kind document")
    done = annotator("label", "docs.jsonl", "-o", "labels.parquet", "--kind", "document", cwd=tmp_path)
    assert done.returncode == 0
    refused(annotator(*matching, cwd=tmp_path), "slices.parquet", "taxonomy version '2'")


@pytest.mark.parametrize(
    ("out", "said"), [(".", "name of a file or a folder"), ("", "name of a file or a folder"), ("-", "a file name")]
)
def test_an_output_without_a_name_is_refused(tmp_path, out, said):
    """The dead letters are named after it, and nothing is written to stdout."""
    items = jsonl(tmp_path / "items.jsonl", ITEMS)
    with pytest.raises(BadInput, match=said):
        label_here([items], out=out, judge=ScriptedJudge(dict))


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("b.jsonl", "\n \n"), ("c.csv", ""), ("d.csv", "id,prompt\n")]
)
def test_inputs_without_a_record_are_refused_and_nothing_is_written(tmp_path, name, content):
    """An empty table of labels would look like work done."""
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match="no records"):
        label_here([tmp_path / name], out=tmp_path / "labels.parquet", judge=ScriptedJudge(dict))
    with pytest.raises(BadInput, match="no records"):
        estimate([tmp_path / name], judge=ScriptedJudge(dict))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_standard_input_is_refused(tmp_path):
    """The command before the pipe has failed, more often than not."""
    done = CliRunner().invoke(label_command, ["-", "-o", str(tmp_path / "l.parquet"), "--kind", "item"], input="")
    assert "standard input: nothing came" in str(done.exception)


def test_an_empty_path_is_refused():
    """It would mean the current folder."""
    with pytest.raises(BadInput, match="an empty path"):
        find_shards([""])


def test_a_refused_run_leaves_no_folder_behind(tmp_path):
    """A folder of finished shards stays only if there are some."""
    items = jsonl(tmp_path / "items.jsonl", [{"id": "a", "something": "else"}])
    with pytest.raises(BadInput, match="no column 'prompt'"):
        label_here([items], out=tmp_path / "labels.parquet", judge=ScriptedJudge(dict), cache_dir=None)
    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]


@pytest.mark.parametrize(
    "option",
    [("--timeout", "-5"), ("--timeout", "nan"), ("--temperature", "nan"), ("--max-cost", "nan"), ("--max-cost", "inf")],
)
def test_a_number_that_is_none_is_refused(tmp_path, option):
    """NaN lies in every range, since it is not less than any bound."""
    done = CliRunner().invoke(label_command, ["x.jsonl", "-o", "l.parquet", "--kind", "item", *option])
    assert done.exit_code == 2
    assert option[0] in done.output


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_folder_in_which_nothing_can_be_made_is_said_to_be_one():
    """The kernel's own folders give reasons that lead nowhere ("No such file or directory")."""
    with pytest.raises(BadInput, match=r"/proc: no file can be made in this folder\. Choose"):
        write_probe(Path("/proc"))
    with pytest.raises(BadInput, match=r"/proc/none: this folder cannot be made\. Choose"):
        write_probe(Path("/proc/none"))
    with pytest.raises(BadInput, match=r"/dev/null: is not a folder\. Choose"):
        write_probe(Path("/dev/null"))


def test_shipped_files_are_named_by_where_they_lie(tmp_path):
    """An installation from a wheel has no examples/ in the current folder."""
    with pytest.raises(BadInput, match=re.escape(str(resource("examples", "loop.toml")))):
        load_settings(tmp_path / "none.toml")
    judge = ScriptedJudge(dict)
    items = jsonl(tmp_path / "items.jsonl", ITEMS)
    with pytest.raises(BadInput, match=re.escape(str(resource("schemas", "prices.toml")))):
        label_here([items], out=tmp_path / "l.parquet", judge=judge, budget=Budget(max_cost_usd=1))

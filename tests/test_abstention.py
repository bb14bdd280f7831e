"""A student alone abstains below a chosen confidence: no label, a reason, and a way to have the record labelled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_faults import Faults
from llm_server import LLMServer

from annotator.cli import application
from annotator.errors import BadInput
from annotator.judges import Pace, open_judge
from annotator.judges.student import Student, embedded_path
from annotator.label import label
from annotator.prompts import load_prompt
from annotator.tables import LABELS
from annotator.taxonomy import AXES, load_taxonomy

TAXONOMY = load_taxonomy()
TEXTS = (
    "Theorem {n}. Every prime above 2 is odd. Proof. Suppose that p is even; then 2 divides p.",
    "Mix {n} eggs with flour.\n1. Stir.\n2. Bake in the oven until golden brown.\n3. Let it cool.",
    "def total(values):\n    result = {n}\n    for value in values:\n        result += value\n    return result\n",
    "The committee met on day {n}. It was raining, and nobody came; the minutes say so in four words.",
    "zyx {n} wvu tsr qpo",
)
LABEL_COLUMNS = [*AXES, "exercise", "quality", "evidence", "evidence_dropped", "model", "strategy"]


def write_documents(path, count=60):
    rows = [{"doc_id": f"d{n:03}", "text": TEXTS[n % 5].format(n=n) * (1 + n % 3)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def documents(tmp_path):
    return write_documents(tmp_path / "documents.jsonl")


def embedded(below=None):
    return open_judge("embedded", kind="document", taxonomy=TAXONOMY, below=below)


def middling(path):
    """A confidence that parts these documents in two."""
    texts = pl.read_ndjson(path)["text"].to_list()
    return float(Student.load(embedded_path()).predict(texts, "document")["confidence"].median())


def test_what_it_is_unsure_of_gets_no_label_and_the_rest_the_same_as_ever(documents, tmp_path):
    """Rows under the threshold fail with the reason and keep the confidence; the others are those of a plain run."""
    below = middling(documents)

    label([documents], out=tmp_path / "all.parquet", judge=embedded())
    summary = label([documents], out=tmp_path / "sure.parquet", judge=embedded(below))

    every, sure = pl.read_parquet(tmp_path / "all.parquet"), pl.read_parquet(tmp_path / "sure.parquet")
    unsure = every["confidence"] < below
    assert 0 < unsure.sum() < len(every)
    assert summary.failures == {"unsure": unsure.sum()}
    assert (summary.records, summary.labelled) == (60, 60 - unsure.sum())
    assert sure["status"].to_list() == ["failed" if each else "ok" for each in unsure]
    assert sure["error"].to_list() == ["unsure" if each else None for each in unsure]
    assert sure.filter(unsure).select(LABEL_COLUMNS).null_count().row(0) == (unsure.sum(),) * len(LABEL_COLUMNS)
    assert sure["confidence"].equals(every["confidence"])
    assert sure.filter(~unsure).equals(every.filter(~unsure))
    assert "without a label" in " ".join(summary.notes)


def test_a_record_exactly_as_sure_as_asked_for_is_labelled(documents, tmp_path):
    """The threshold is the least confidence that stands."""
    texts = pl.read_ndjson(documents)["text"].to_list()
    confidence = Student.load(embedded_path()).predict(texts, "document")["confidence"].max()

    summary = label([documents], out=tmp_path / "l.parquet", judge=embedded(confidence))

    assert summary.labelled >= 1


@settings(deadline=None, max_examples=20)
@given(lower=st.floats(0.05, 1), higher=st.floats(0.05, 1))
def test_a_higher_threshold_labels_fewer_of_the_same_records(tmp_path_factory, lower, higher):
    """Whatever the two thresholds."""
    lower, higher = sorted((lower, higher))
    folder = tmp_path_factory.mktemp("nested")
    path, judge, kept = write_documents(folder / "documents.jsonl", count=15), embedded(), []

    for name, below in (("lower", lower), ("higher", higher)):
        label([path], out=folder / f"{name}.parquet", judge=replace(judge, below=below))
        table = pl.read_parquet(folder / f"{name}.parquet")
        kept.append(set(table.filter(pl.col("status") == "ok")["record_id"]))

    assert kept[1] <= kept[0]


def test_dead_letters_name_the_axis_in_doubt(documents, tmp_path):
    """Each has its record, reason and a detail with both figures."""
    below = middling(documents)
    label([documents], out=tmp_path / "l.parquet", judge=embedded(below))

    table = pl.read_parquet(tmp_path / "l.parquet").filter(pl.col("status") == "failed")
    letters = pl.read_ndjson(tmp_path / "l.parquet.failed.jsonl")
    assert letters["record_id"].to_list() == table["record_id"].to_list()
    for letter, row in zip(letters.to_dicts(), table.to_dicts(), strict=True):
        doubted = min(AXES, key=lambda axis: row[f"confidence_{axis}"])
        assert letter["reason"] == "unsure"
        assert letter["detail"] == f"confidence {row['confidence']:g} in {doubted}, below {below:g}"


def test_processes_abstain_alike(tmp_path):
    """Worker processes know the threshold."""
    paths = [write_documents(tmp_path / "a.jsonl", 30)]
    rows = [json.loads(line) for line in write_documents(tmp_path / "b.jsonl", 30).read_text().splitlines()]
    paths.append(tmp_path / "b.jsonl")
    paths[1].write_text("".join(json.dumps(row | {"doc_id": f"b{row['doc_id']}"}) + "\n" for row in rows))
    below = middling(paths[0])

    summaries = [label(paths, out=tmp_path / f"{n}.parquet", judge=embedded(below), processes=n) for n in (1, 2)]

    assert summaries[0].failures == summaries[1].failures != {}
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_another_threshold_is_another_run(documents, tmp_path):
    """A folder that was finished with one threshold is not taken for that of another."""
    out = tmp_path / "labels"
    first = label([documents], out=out, judge=embedded(middling(documents)))
    again = label([documents], out=out, judge=embedded(middling(documents)))
    other = label([documents], out=out, judge=embedded(1.0))

    assert (first.shards_resumed, again.shards_resumed, other.shards_resumed) == (0, 1, 0)
    assert (again.records, again.labelled, again.failures) == (60, first.labelled, first.failures)
    assert other.failures["unsure"] > first.failures["unsure"]


def test_an_llm_takes_up_what_the_student_left(documents, tmp_path):
    """`retry_failed` with another judge asks for these records alone, and their rows take the places."""
    out, below = tmp_path / "l.parquet", middling(documents)
    first = label([documents], out=out, judge=embedded(below))
    with LLMServer(Faults()) as server:
        llm = open_judge(
            "openai:gpt-5-mini", kind="document", taxonomy=TAXONOMY, prompt=load_prompt("document", TAXONOMY),
            base_url=server.base_url, api_key="any", pace=Pace(concurrency=8),
        )  # fmt: skip
        again = label([documents], out=out, judge=llm, cache_dir=None, retry_failed=True)

    table = pl.read_parquet(out)
    assert again.requests == first.failed
    assert table["status"].to_list() == ["ok"] * 60
    assert table["record_id"].is_sorted()
    assert (table["judge"] == "embedded").sum() == first.labelled


def test_a_folder_does_not_change_judges(documents, tmp_path):
    """Its finished shards are those of one judge; another would be asked, and paid, for every record."""
    out = tmp_path / "labels"
    label([documents], out=out, judge=embedded(middling(documents)))
    before = (out / "documents.parquet").read_bytes()

    with pytest.raises(BadInput, match="labelled by another judge"):
        label([documents], out=out, judge=embedded(), retry_failed=True)

    assert (out / "documents.parquet").read_bytes() == before


@pytest.mark.parametrize("command", ["agree", "slices"])
def test_a_table_in_which_nothing_has_a_label_is_refused_in_one_line(documents, tmp_path, command):
    """As when every record lies below the threshold."""
    label([documents], out=tmp_path / "none.parquet", judge=embedded(1.0))
    table = pl.read_parquet(tmp_path / "none.parquet").with_columns(status=pl.lit("failed"))
    table.write_parquet(tmp_path / "none.parquet")
    (tmp_path / "items.jsonl").write_text('{"item_id": "d000", "prompt": "p", "target": "t"}\n')
    (tmp_path / "run.jsonl").write_text('{"item_id": "d000", "run": "r", "sample_index": 0, "score": 1.0}\n')
    shutil.copy(tmp_path / "none.parquet", tmp_path / "other.parquet")
    agree = f"none.parquet {tmp_path}/other.parquet"
    slices = f"none.parquet --items {tmp_path}/items.jsonl --samples {tmp_path}/run.jsonl -o {tmp_path}/s.parquet"
    given = {"agree": f"{tmp_path}/{agree}", "slices": f"--labels {tmp_path}/{slices}"}[command].split()

    with pytest.raises(BadInput, match="no row has a label"):
        CliRunner().invoke(application, [command, *given], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_command_says_how_many_and_exits_with_1(documents, tmp_path, suffix):
    """As with any failed row; the tables of all formats have the columns of the contract."""
    out = tmp_path / f"l.{suffix}"
    arguments = ["label", str(documents), "-o", str(out), "--kind", "document", "--below", "0.99"]

    run = CliRunner().invoke(application, arguments, standalone_mode=False)

    assert run.return_value == 1
    assert "embedded is less than 0.99 sure. An LLM as --judge, with --retry-failed, labels them." in run.stdout
    table = pl.read_ndjson(out, infer_schema_length=None) if suffix == "jsonl" else pl.read_csv(out)
    assert set(LABELS) <= set(table.columns)
    assert "unsure" in table["error"].to_list()

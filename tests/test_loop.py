"""The whole loop through the real command: artefacts, resumption, determinism, and the other verdict."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from llm_faults import Faults
from llm_server import LLMServer

from annotator.resources import resource
from annotator.tables import DROPPED, LABELS, MATCHES, SLICES, UPSAMPLE

TABLES = {
    "item_labels.parquet": LABELS,
    "document_labels.parquet": LABELS,
    "slices.parquet": SLICES,
    "matches.parquet": MATCHES,
    "upsample.parquet": UPSAMPLE,
    "upsample.parquet.dropped.parquet": DROPPED,
}
PLANTED = {"divisibility", "last_digits", "shuffled_objects", "program_execution", "navigation"}


def annotator(*arguments: str | Path, threads: int | None = None, **variables: str) -> subprocess.CompletedProcess:
    """Runs the real command, with a thread count for polars if given."""
    environment = os.environ | variables | ({"POLARS_MAX_THREADS": str(threads)} if threads else {})
    command = [sys.executable, "-m", "annotator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one demo run, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = annotator("demo", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_demo_writes_every_artefact_of_the_contract(demo):
    """Columns by name and type, and a page."""
    out, _ = demo
    for name, columns in TABLES.items():
        schema = pl.read_parquet_schema(out / name)
        for column, dtype in columns.items():
            assert schema[column] == dtype, f"{name}: {column}"
    diagnosis = json.loads((out / "diagnosis.json").read_text())
    assert diagnosis["verdict"] == "data"
    assert {
        "cause",
        "drop",
        "recovered_share",
        "residual_drop",
        "causes",
        "axis_shape",
        "comparability",
        "advice",
    } <= set(diagnosis)
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert (out / "export" / "upsample.jsonl.zst").exists()


def test_the_demo_finds_the_planted_weakness(demo):
    """Most items of the failing slices belong to the families in which the second checkpoint was made weak."""
    out, _ = demo
    items = pl.read_ndjson(resource("examples", "items.jsonl"))
    weak = set(items.filter(pl.col("task").is_in(PLANTED))["item_id"])
    slices = pl.read_parquet(out / "slices.parquet")
    assert slices.height >= 1
    found = set(slices["item_ids"].explode())
    assert len(found & weak) / len(weak) > 0.5


def test_the_demo_prints_what_a_user_wants_to_see(demo):
    """Verdict, slices, categories, documents with reasons, and where the files are."""
    out, done = demo
    for words in ("Diagnosis: data", "Failing slices", "Corpus categories", "Documents to train on", "report.html"):
        assert words in done.stdout
    best = pl.read_parquet(out / "upsample.parquet").row(0, named=True)
    assert best["doc_id"] in done.stdout
    assert best["rule_ids"][0] in done.stdout


def test_every_document_is_chosen_or_dropped_with_a_reason(demo):
    """chosen + dropped = read; a document that quotes an item of a failing family is caught."""
    out, _ = demo
    chosen, dropped = (
        pl.read_parquet(out / "upsample.parquet"),
        pl.read_parquet(out / "upsample.parquet.dropped.parquet"),
    )
    documents = pl.read_parquet(out / "document_labels.parquet")["record_id"]
    assert sorted([*chosen["doc_id"], *dropped["doc_id"]]) == sorted(documents)
    assert int((chosen["tokens"] * chosen["repeats"]).sum()) <= 12_000
    assert "contaminated" in set(dropped["reason"])


def test_a_finished_run_is_resumed_without_doing_anything_again(demo):
    """All steps are kept; an artefact that was lost is made again, with the same bytes."""
    out, _ = demo
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    bytes_before = (out / "matches.parquet").read_bytes()
    again = annotator("demo", "--out", out)
    assert again.returncode == 0
    assert again.stderr.count("resumed") == 8
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == before
    (out / "matches.parquet").unlink()
    mended = annotator("demo", "--out", out)
    assert "matches          done" in mended.stderr
    assert "slices           resumed" in mended.stderr
    assert (out / "matches.parquet").read_bytes() == bytes_before


def shuffled_example(folder: Path, seed: int) -> Path:
    """The bundled example with its rows in another order and the corpus in other shards."""
    source, chance = resource("examples"), random.Random(seed)
    (folder / "corpus").mkdir(parents=True)
    shutil.copy(source / "loop.toml", folder)
    documents = [
        line for shard in sorted((source / "corpus").glob("*.jsonl")) for line in shard.read_text("utf-8").splitlines()
    ]
    chance.shuffle(documents)
    for number in range(7):
        (folder / "corpus" / f"s{number}.jsonl").write_text("\n".join(documents[number::7]) + "\n", "utf-8")
    for name in ("items.jsonl", "samples-before.jsonl.gz", "samples-after.jsonl.gz"):
        opened = gzip.open if name.endswith(".gz") else open
        with opened(source / name, "rt", encoding="utf-8") as lines:
            rows = lines.read().splitlines()
        chance.shuffle(rows)
        with opened(folder / name, "wt", encoding="utf-8") as target:
            target.write("\n".join(rows) + "\n")
    return folder / "loop.toml"


@pytest.mark.parametrize("threads", [1, 2])
def test_row_order_shards_and_threads_change_no_byte(demo, tmp_path, threads):
    """Slices, matches, ranked list and dropped list of the same content are the same files."""
    out, _ = demo
    settings = shuffled_example(tmp_path / "example", seed=threads)
    done = annotator("run", settings, "--out", tmp_path / "out", threads=threads)
    assert done.returncode == 0, done.stderr
    for name in ("slices.parquet", "matches.parquet", "upsample.parquet", "upsample.parquet.dropped.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes(), name


def test_outputs_that_lost_their_stop_are_not_blamed_on_data(tmp_path):
    """The reference run's own outputs, run on past the answer as a model without a stop does: no list is made."""
    folder = tmp_path / "example"
    settings = shuffled_example(folder, seed=3)
    with gzip.open(folder / "samples-before.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows):
        wrong = "Q: How many apples are left?\nA: Let us see. The answer is 777."
        row |= {"run": "no-stop", "response": f"{row['response']}\n\n{wrong}\n\n{wrong}", "finish_reason": "length"}
        row["score"] = 0 if number % 4 else row["score"]  # a scorer that reads the last answer
    with gzip.open(folder / "samples-after.jsonl.gz", "wt", encoding="utf-8") as target:
        target.writelines(json.dumps(row) + "\n" for row in rows)
    done = annotator("run", settings, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert diagnosis["verdict"] == "not_data"
    assert not (tmp_path / "out" / "upsample.parquet").exists()
    assert "data is not the cause" in done.stderr


def test_rows_that_failed_are_asked_for_again_and_no_others(tmp_path):
    """A second run of the same settings sends the failed records only; with none left it sends nothing."""
    settings = shuffled_example(tmp_path / "example", seed=4)
    with LLMServer(Faults(rates={"refusal": 0.05})) as server:
        asks = f'items = "openai:test-model"\nbase_url = "{server.base_url}"'
        settings.write_text(settings.read_text().replace('items = "embedded"', asks))
        command = ("run", settings, "--out", tmp_path / "out", "--cache-dir", tmp_path / "cache", "--json")
        first = annotator(*command, OPENAI_API_KEY="test")
        failed = json.loads(first.stdout)["failed"]
        assert first.returncode == 1
        assert failed > 0
        server.configure(Faults())
        asked = server.stats().requests
        second = annotator(*command, OPENAI_API_KEY="test")
        assert second.returncode == 0, second.stderr
        assert json.loads(second.stdout)["failed"] == 0
        assert server.stats().requests - asked == failed
        third = annotator(*command, OPENAI_API_KEY="test")
        assert third.returncode == 0, third.stderr
        assert server.stats().requests - asked == failed


def test_a_dry_run_says_what_labelling_costs_and_writes_nothing(tmp_path):
    """Both sides, with the records that are there."""
    done = annotator("run", shuffled_example(tmp_path / "example", seed=1), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)
    assert forecast["item_labels"]["records"] == 322
    assert forecast["document_labels"]["records"] == 162
    assert not (tmp_path / "demo").exists()

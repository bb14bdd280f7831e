"""Settings of the loop: a slip is told before anything is written, and packs of rules need no labels of documents."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest
from command_line import annotator, refused

from annotator.cli import main
from annotator.judges import student
from annotator.mapping import load_rules
from annotator.resources import resource
from annotator.tables import read_made_from

TOPICS = ("Science & Tech.", "Software Dev.", "Games", "Education & Jobs", "Food & Dining")
FORMATS = ("Tutorial", "Q&A Forum", "Listicle", "Academic Writing")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The bundled example, with a corpus of 80 pages that carries topic (under another name) and format."""
    folder = tmp_path_factory.mktemp("example")
    for name in ("items.jsonl", "samples-before.jsonl.gz", "samples-after.jsonl.gz"):
        shutil.copy(resource("examples", name), folder)
    pages = [
        {"page": f"p{k:02}", "body": f"Page {k} on things of its own kind, number {k * k}, told in words. " * 9,
         "domain": TOPICS[k % 5], "format": FORMATS[k // 5 % 4], "source": f"web-{k % 3}"}
        for k in range(80)
    ]  # fmt: skip
    (folder / "pages").mkdir()
    for part in range(2):
        pl.DataFrame(pages[part::2]).write_ndjson(folder / "pages" / f"part-{part}.jsonl")
    return folder


PAGES = 'paths = ["pages"]\ncolumns = { doc_id = "page", text = "body", topic = "domain" }'
CHANGES = {"corpus": ('paths = ["corpus/*.jsonl"]', PAGES), "budget": ("12_000", "2_000")}
PACK = ('out = "../demo"', 'out = "../demo"\nrules = "weborganizer"')


def settings(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """The bundled settings file with the made corpus and some texts replaced."""
    text = resource("examples", "loop.toml").read_text("utf-8")
    for old, new in (*CHANGES.values(), *changes):
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


NO_DOCUMENTS_JUDGE = ('documents = "embedded"\n', "")
HF = ('formats = ["jsonl", "megatron"]', 'formats = ["jsonl", "hf"]')


@pytest.fixture(scope="module")
def ran(example):
    """A run with the WebOrganizer pack, to a folder that holds something of the user's."""
    (example / "out" / "export").mkdir(parents=True)
    (example / "out" / "export" / "notes.txt").write_text("mine")
    settings(example, "pack.toml", PACK, NO_DOCUMENTS_JUDGE, HF)
    done = annotator("run", "pack.toml", "--out", "out", cwd=example)
    assert done.returncode == 0, done.stderr
    return example, done


def test_a_corpus_with_labels_of_its_own_needs_no_judge_of_documents(ran):
    """From outputs to trainer input by topic and format alone; every choice names rules of the pack."""
    folder, done = ran
    out = folder / "out"

    assert "document_labels  skipped: the corpus carries labels of its own" in done.stderr
    assert not (out / "document_labels.parquet").exists()
    chosen = pl.read_parquet(out / "upsample.parquet")
    dropped = pl.read_parquet(out / "upsample.parquet.dropped.parquet")
    assert chosen.height > 3
    assert chosen.height + dropped.height == 80
    assert all(row.startswith("topic=") for row in chosen["category_id"])
    pack = load_rules("weborganizer")
    named = set(chosen["rule_ids"].explode())
    assert named <= {entry.id for entry in (*pack.rules, *pack.near)} | {
        f"mix-{axis}" for axis in ("bg", "task", "out")
    }
    assert read_made_from(out / "upsample.parquet")["rules"] == pack.fingerprint
    page = (out / "report.html").read_text()
    assert "labels of the documents" not in page
    assert chosen["doc_id"][0] in page
    rows = [json.loads(line) for file in (out / "export" / "hf" / "data").iterdir() for line in file.open()]
    assert {row["doc_id"] for row in rows} == set(chosen["doc_id"])
    assert all(row["text"].startswith("Page ") for row in rows)


def test_the_commands_one_by_one_match_the_same_categories_as_the_run(ran):
    """With the same pack and the same names of columns."""
    folder, _ = ran
    columns = [part for pair in ("doc_id=page", "text=body", "topic=domain") for part in ("--column", pair)]

    done = annotator("match", "--slices", "out/slices.parquet", "--item-labels", "out/item_labels.parquet", "--rules",
                     "weborganizer", "--documents", "pages", *columns, "-o", "m.parquet", cwd=folder)  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(folder / "m.parquet").equals(pl.read_parquet(folder / "out" / "matches.parquet"))


def test_a_run_with_a_pack_is_forecast_resumed_and_done_again_when_its_columns_change(ran):
    """The forecast is of items alone; another column for the topic is another match, and a missing one is refused."""
    folder, _ = ran

    forecast = annotator("run", "pack.toml", "--dry-run", "--json", cwd=folder)
    again = annotator("run", "pack.toml", "--out", "out", cwd=folder)

    assert list(json.loads(forecast.stdout)) == ["item_labels"]
    assert again.stderr.count("resumed") == 7
    assert not (folder.parent / "demo").exists()
    changed = ('topic = "domain"', 'topic = "source"')
    settings(folder, "other.toml", PACK, NO_DOCUMENTS_JUDGE, HF, changed)
    other = annotator("run", "other.toml", "--out", "out", cwd=folder)
    assert "slices           resumed" in other.stderr
    assert "matches          done" in other.stderr
    assert "export           skipped: no document was chosen" in other.stderr
    assert [path.name for path in (folder / "out" / "export").iterdir()] == ["notes.txt"]


SLIPS = {
    "an unknown judge": (
        [('items = "embedded"', 'items = "opnai:gpt"')],
        ["[judge] items: 'opnai:gpt' names no judge"],
    ),
    "half a cascade": (
        [('documents = "embedded"', 'documents = "cascade:embedded"')],
        ["cascade:embedded: a cascade needs a student and an LLM"],
    ),
    "no key": ([('documents = "embedded"', 'documents = "openai:gpt-5-mini"')], ["OPENAI_API_KEY"]),
    "no student": ([('documents = "embedded"', 'documents = "student:none"')], ["none"]),
    "a threshold without a cascade": (
        [('documents = "embedded"', 'documents = "embedded"\nbelow = 0.5')],
        ["[judge] below: in a run only a cascade has a threshold"],
    ),
    "a threshold out of range": (
        [('documents = "embedded"', 'documents = "embedded"\nbelow = 1.5')],
        ["judge.below", "less than or equal to 1"],
    ),
    "an unknown column": (
        [('paths = ["items.jsonl"]', 'paths = ["items.jsonl"]\ncolumns = { itm_id = "x" }')],
        ["[items] columns: 'itm_id' is not a column that can be set", "Did you mean 'item_id'?"],
    ),
    "a judge beside a pack": (
        [PACK],
        ["[judge] documents: no judge labels the documents: the rules 'weborganizer' read the corpus's own labels"],
    ),
    "a column of the pack that the corpus lacks": (
        [PACK, NO_DOCUMENTS_JUDGE, (', topic = "domain"', "")],
        [
            "part-0.jsonl: no column 'topic', at which the rules look",
            "--column topic=YOURS; in settings, under columns",
        ],
    ),
    "a misspelt pack": (
        [('out = "../demo"', 'out = "../demo"\nrules = "weborganiser"')],
        ["weborganiser: no such rule file", "weborganizer, essential-web"],
    ),
    "a column of another pack": (
        [],
        ["[documents] columns: 'topic' is not a column that can be set"],
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_settings_is_told_before_anything_is_written(example, slip, monkeypatch, capsys):
    """Whatever can be told without reading all of the inputs, so that no answer is paid for first."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(example)
    changes, said = SLIPS[slip]
    own = [] if PACK in changes or not changes else [(', topic = "domain"', "")]
    settings(example, "slip.toml", *changes, *own)

    words = ["annotator", "run", "slip.toml", "--out", "slipped", "--cache-dir", "slipped-cache"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()

    refused(CompletedProcess(words, stop.value.code, *capsys.readouterr()), *said)

    assert not (example / "slipped").exists()
    assert not (example / "slipped-cache").exists()


@pytest.mark.skipif(importlib.util.find_spec("streaming") is not None, reason="mosaicml-streaming is installed here")
def test_a_format_that_cannot_be_written_here_is_told_first(example):
    """Not after all has been labelled."""
    settings(example, "slip.toml", (', topic = "domain"', ""), (HF[0], 'formats = ["streaming"]'))

    refused(annotator("run", "slip.toml", "--out", "slipped", cwd=example), "[export] formats", "mosaicml-streaming")

    assert not (example / "slipped").exists()


def test_languages_of_the_settings_that_no_document_has_are_refused(ran):
    """By the key of the settings, not by an option."""
    folder, _ = ran
    settings(folder, "german.toml", PACK, NO_DOCUMENTS_JUDGE, ("2_000", '2_000\nlanguages = ["de"]'))

    refused(annotator("run", "german.toml", "--out", "german", "--quiet", cwd=folder),
            "german.toml [rank]: no document says its language")  # fmt: skip


def test_a_students_folder_is_found_from_the_settings_file(example, tmp_path, monkeypatch):
    """As all paths of the settings, from wherever the command runs; in a cascade too."""
    shutil.copytree(Path(student.__file__).parent / "embedded", example / "mine", dirs_exist_ok=True)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    judges = 'items = "student:mine"', 'documents = "cascade:student:mine,openai:test-model"'
    path = settings(example, "student.toml", ('items = "embedded"', judges[0]), ('documents = "embedded"', judges[1]),
                    (', topic = "domain"', ""))  # fmt: skip

    done = annotator("run", path, "--dry-run", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["item_labels"]["records"] == 322


def test_where_no_slice_fails_no_document_is_labelled(example):
    """The run against itself: nothing is looked for in the corpus, and the report says what was found."""
    settings(example, "same.toml", ("samples-after", "samples-before"), (', topic = "domain"', ""))

    done = annotator("run", "same.toml", "--out", "same", "--json", cwd=example)

    assert done.returncode == 0, done.stderr
    for step in ("matches", "upsample", "export"):
        assert f"{step:<16} skipped: no slice fails" in done.stderr
    assert "document_labels" not in json.loads(done.stdout)["artefacts"]
    assert (example / "same" / "report.html").exists()


def test_the_threshold_of_a_cascade_is_set_in_the_settings(example, monkeypatch):
    """Under 0.01 the student is sure of all, under 1 of none; the other side's judge is not asked about it."""
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    asked = {}
    for below in ("0.01", "1.0"):
        cascade = f'documents = "cascade:embedded,openai:test-model"\nbelow = {below}\nbase_url = "http://127.0.0.1:9"'
        path = settings(example, "cascade.toml", ('documents = "embedded"', cascade), (', topic = "domain"', ""))
        done = annotator("run", path, "--dry-run", "--json", cwd=example)
        assert done.returncode == 0, done.stderr
        forecast = json.loads(done.stdout)
        asked[below] = forecast["document_labels"]["to_ask"]

    assert asked == {"0.01": 0, "1.0": 80}

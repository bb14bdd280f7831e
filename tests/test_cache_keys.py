"""What the key of a paid answer holds: all that can change an answer, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from annotator.fingerprint import fingerprint
from annotator.judges import Pace, Sampling, open_judge
from annotator.judges.cache import Answer, AnswerCache
from annotator.label import estimate
from annotator.labelling.chunking import asked_window
from annotator.prompts import load_prompt
from annotator.readers import find_shards, read_records
from annotator.resources import resource
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
TEXTS = {"q0": "What is one plus one?", "q1": "Name a prime number. " * 60, "q2": "Who wrote this?\n\nAnd when?"}
PRIVATE = "http://10.0.0.7:8000/v1"


def judge_of(*, kind="item", model="test-model", taxonomy=TAXONOMY, prompt=None, **options):
    options = {"base_url": PRIVATE, "api_key": "sk-one"} | options
    prompt = prompt or load_prompt(kind, taxonomy)
    return open_judge(f"openai:{model}", kind=kind, taxonomy=taxonomy, prompt=prompt, cache_dir=None, **options)


def write_items(path: Path, texts: dict[str, str] = TEXTS) -> Path:
    path.write_text("".join(json.dumps({"id": name, "prompt": text}) + "\n" for name, text in texts.items()))
    return path


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    """A cache with the answers to the items of TEXTS, as an earlier run left them."""
    folder = tmp_path_factory.mktemp("paid")
    shard, judge = find_shards([write_items(folder / "items.jsonl")])[0], judge_of()
    cache = AnswerCache(folder / "cache")
    for index, batch in enumerate(read_records(shard, kind="item")):
        window = asked_window(shard, index, batch, fingerprint(judge.identity), message=judge.prompt.user,
                              max_input_tokens=None, chunks=None)  # fmt: skip
        cache.put_many((key, Answer({}, "m", "json_schema", (1, 9, 0, 9))) for key in window.keys)
    cache.close()
    return folder / "cache"


def in_cache(path, judge, cache, **cutting) -> int:
    return estimate([path], judge=judge, cache_dir=cache, **cutting).cached


def template(folder: Path, old: str, new: str) -> Path:
    """The item prompt with one change."""
    text = resource("prompts", "item.md").read_text("utf-8")
    assert old in text
    (folder / "prompt.md").write_text(text.replace(old, new, 1))
    return folder / "prompt.md"


def codebook(folder: Path, old: str, new: str):
    """The taxonomy with one change."""
    text = resource("schemas", "taxonomy.toml").read_text("utf-8")
    assert old in text
    (folder / "taxonomy.toml").write_text(text.replace(old, new, 1))
    return load_taxonomy(folder / "taxonomy.toml")


def test_the_same_run_finds_everything(paid, tmp_path):
    """Otherwise the misses below would mean nothing."""
    assert in_cache(write_items(tmp_path / "items.jsonl"), judge_of(), paid) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "test-model-2"},
        {"sampling": Sampling(temperature=0.7)},
        {"sampling": Sampling(temperature=None)},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(max_output_tokens=512)},
        {"sampling": Sampling(logprobs=True)},
        {"strategy": "json_schema"},
        {"endpoint_name": "other-weights"},
        {"base_url": "https://api.example.com/v1"},
        {"kind": "document"},
    ],
    ids=str,
)
def test_another_judge_finds_nothing(paid, tmp_path, changed):
    """Model, sampling, form of the answer, endpoint, kind."""
    path = write_items(tmp_path / "items.jsonl")
    if changed.get("kind") == "document":
        path.write_text(path.read_text().replace('"prompt"', '"text"'))
    assert in_cache(path, judge_of(**changed), paid) == 0


@pytest.mark.parametrize(
    ("old", "new"), [("Ground rules", "Rules"), ("{{ codebook }}", "{{ codebook }}\n\nExample: 1 + 1 is arithmetic.")]
)
def test_one_changed_word_or_example_of_the_prompt_finds_nothing(paid, tmp_path, old, new):
    """An answer was given to the whole prompt."""
    prompt = load_prompt("item", TAXONOMY, template(tmp_path, old, new))
    assert in_cache(write_items(tmp_path / "items.jsonl"), judge_of(prompt=prompt), paid) == 0


def test_a_changed_definition_of_the_codebook_finds_nothing(paid, tmp_path):
    """The codebook is part of the prompt, and its values are the form of the answer."""
    value = TAXONOMY.values("task_type", "item")[0]
    meaning = TAXONOMY.axes["task_type"].definitions["item"][value]
    reworded = codebook(tmp_path, meaning, f"{meaning} Or nearly so.")
    renamed = codebook(tmp_path, f"{value} =", f"{value}_too =")
    for taxonomy in (reworded, renamed):
        assert in_cache(write_items(tmp_path / "items.jsonl"), judge_of(taxonomy=taxonomy), paid) == 0


def test_another_text_or_cut_finds_only_what_stayed_the_same(paid, tmp_path):
    """One changed letter; an excerpt of the long record, and another size of it; chunks of it."""
    edited = write_items(tmp_path / "items.jsonl", TEXTS | {"q0": "What is one plus One?"})
    assert in_cache(edited, judge_of(), paid) == 2
    path = write_items(tmp_path / "items.jsonl")
    assert in_cache(path, judge_of(), paid, max_input_tokens=100) == 2
    assert in_cache(path, judge_of(), paid, max_input_tokens=100, chunks=2) == 2
    cut = {tokens: estimate([path], judge=judge_of(), cache_dir=None, max_input_tokens=tokens) for tokens in (100, 200)}
    assert cut[100].input_tokens < cut[200].input_tokens


@pytest.mark.parametrize(
    "changed",
    [
        {"api_key": "sk-rotated"},
        {"api_key": None},
        {"base_url": "http://localhost:9999/v1"},
        {"pace": Pace(concurrency=3, rpm=7, tpm=100, timeout_s=1, attempts=1, reasks=0, deadline_s=9)},
    ],
    ids=str,
)
def test_how_the_judge_is_reached_does_not_matter(paid, tmp_path, changed):
    """Key, address of a private server, speed, time-outs, retries."""
    assert in_cache(write_items(tmp_path / "items.jsonl"), judge_of(**changed), paid) == 3


def test_where_the_records_lie_does_not_matter(paid, tmp_path):
    """Order, ids, file names, shards, format, columns besides the text, a size that cuts nothing."""
    judge = judge_of()
    reordered = dict(reversed(TEXTS.items()))
    assert in_cache(write_items(tmp_path / "other-name.jsonl", reordered), judge, paid) == 3
    renamed = {f"new-{name}": text for name, text in TEXTS.items()}
    assert in_cache(write_items(tmp_path / "ids.jsonl", renamed), judge, paid) == 3
    (tmp_path / "shards").mkdir()
    for name, text in TEXTS.items():
        write_items(tmp_path / "shards" / f"{name}.jsonl", {name: text})
    assert in_cache(tmp_path / "shards", judge, paid) == 3
    rows = {"item_id": list(TEXTS), "prompt": list(TEXTS.values()), "source": ["somewhere"] * 3}
    pl.DataFrame(rows).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    assert in_cache(tmp_path / "items.parquet", judge, paid) == 3
    assert in_cache(tmp_path / "items.csv", judge, paid) == 3
    assert in_cache(tmp_path / "items.parquet", judge, paid, max_input_tokens=5000) == 3

"""The example benchmark is what examples/README.md says it is."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PLANTED = {"divisibility", "last_digits", "shuffled_objects", "program_execution", "navigation"}
DECOYS = {"probability", "seating"}
SAMPLES = {"base-v1": "samples-before.jsonl.gz", "base-v2": "samples-after.jsonl.gz"}


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked: equal content may be packed differently by another build of zlib."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in content(EXAMPLES / name).splitlines()]


@pytest.fixture(scope="module")
def items() -> dict[str, dict]:
    return {row["item_id"]: row for row in rows("items.jsonl")}


@pytest.fixture(scope="module")
def scores(items) -> dict[str, dict[str, float]]:
    """Mean score by run and family."""
    means = {}
    for run, name in SAMPLES.items():
        by_task = defaultdict(list)
        for row in rows(name):
            by_task[items[row["item_id"]]["task"]].append(row["score"])
        means[run] = {task: fmean(values) for task, values in by_task.items()}
    return means


def test_making_the_example_again_changes_no_byte(tmp_path):
    """Items and samples are what the script writes; their gzip headers name neither a time nor a file."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_examples.py"), "--out", str(tmp_path)], check=True)

    for name in ["items.jsonl", *SAMPLES.values()]:
        assert content(tmp_path / name) == content(EXAMPLES / name), name
    for name in SAMPLES.values():
        assert (EXAMPLES / name).read_bytes()[:10] == (tmp_path / name).read_bytes()[:10]
        assert (EXAMPLES / name).read_bytes()[3:8] == bytes(5), "flags and modification time are zero"


def test_item_ids_and_prompts_are_unique():
    """322 rows, 322 ids, 322 prompts, in 20 families of 4 benchmarks."""
    table = rows("items.jsonl")

    assert len(table) == len({row["item_id"] for row in table}) == len({row["prompt"] for row in table}) == 322
    assert len({row["task"] for row in table}) == 20
    assert {row["benchmark"] for row in table} == {"numbers", "reasoning", "everyday", "language"}


def test_clusters_hold_the_items_of_one_generator(items):
    """A generated cluster has 4 to 6 items of one family; a handwritten item is alone in its own."""
    sizes = Counter(row["cluster_id"] for row in items.values())

    assert {size for cluster, size in sizes.items() if cluster not in items} <= {4, 5, 6}
    assert all(sizes[cluster] == 1 for cluster in sizes if cluster in items)


def test_a_multiple_choice_target_is_the_letter_of_an_option(items):
    """The options stand in the prompt under their letters, and the target is one of these letters."""
    choosing = [row for row in items.values() if "choices" in row]

    assert len(choosing) == 70
    for row in choosing:
        letters = [f"({letter})" for letter in "ABCDEFG"[: len(row["choices"])]]
        assert row["target"] in letters
        assert len(set(row["choices"])) == len(row["choices"])
        listed = "\n".join(f"{letter} {text}" for letter, text in zip(letters, row["choices"], strict=True))
        assert row["prompt"].endswith(f"\nOptions:\n{listed}")


@pytest.mark.parametrize("run", SAMPLES)
def test_a_score_is_one_exactly_where_the_answer_is_the_target(items, run):
    """The answer is what follows "the answer is" at the end; an output cut at max_tokens states none."""
    table = rows(SAMPLES[run])

    assert Counter((row["item_id"], row["sample_index"]) for row in table) == Counter(
        (item_id, index) for item_id in items for index in range(4)
    )
    for row in table:
        stated = re.findall(r"[Tt]he answer is (.+)\.$", row["response"])
        assert row["run"] == run
        assert row["finish_reason"] == ("stop" if stated else "length")
        assert row["score"] == int(stated == [items[row["item_id"]]["target"]]), row


def test_the_planted_families_fall_and_no_other_does(scores):
    """Each planted family loses 0.3 or more; the others keep their mean, and none of them loses 0.15."""
    change = {task: scores["base-v2"][task] - before for task, before in scores["base-v1"].items()}

    assert {task for task, by in change.items() if by <= -0.15} == PLANTED
    assert max(change[task] for task in PLANTED) <= -0.3
    assert abs(fmean(by for task, by in change.items() if task not in PLANTED)) < 0.03


def test_the_decoys_are_hard_for_both_runs(scores):
    """Both runs score under 0.4 on them and over 0.5 on every family in which nothing is planted."""
    for run, by_task in scores.items():
        low = {task for task, score in by_task.items() if score < 0.5}
        assert low == (DECOYS if run == "base-v1" else DECOYS | PLANTED)
        assert max(by_task[task] for task in DECOYS) < 0.4


def test_three_documents_quote_an_item_and_one_paraphrases(items):
    """The quoted prompts stand word for word in the text, and no other prompt does."""
    corpus = {row["doc_id"]: row["text"] for row in rows("corpus/part-002.jsonl")}
    quoted = {
        doc_id: [item_id for item_id, row in items.items() if row["prompt"] in text] for doc_id, text in corpus.items()
    }

    assert quoted == {
        "ex-c001": ["divisibility-14"],
        "ex-c002": ["program_execution-12"],
        "ex-c003": ["shuffled_objects-12"],
        "ex-c004": [],
    }

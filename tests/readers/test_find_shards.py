"""Which files a path, a folder or a pattern means, and what they are."""

import gzip

import pytest

from annotator.errors import BadInput
from annotator.readers import find_shards

ROW = [{"id": "a", "text": "one"}]


def test_a_folder_means_its_tables_to_the_bottom_sorted_and_named_within_it(write, tmp_path):
    """Names do not depend on where the folder lies; what is no table is passed over."""
    for name in ("shards/b.jsonl", "shards/deep/a.parquet", "shards/a.csv"):
        write(name, ROW)
    write("shards/README.md", b"# notes\n")
    write("shards/.hidden.jsonl", ROW)
    write("shards/_SUCCESS", b"")

    shards = find_shards([tmp_path / "shards"])

    assert [(shard.name, shard.format) for shard in shards] == [
        ("a.csv", "csv"),
        ("b.jsonl", "jsonl"),
        ("deep/a.parquet", "parquet"),
    ]


def test_a_pattern_means_its_matches_and_a_file_reached_twice_counts_once(write, tmp_path):
    write("part-1.jsonl", ROW)
    write("part-2.jsonl", ROW)

    shards = find_shards([str(tmp_path / "part-*.jsonl"), tmp_path / "part-2.jsonl"])

    assert [shard.name for shard in shards] == ["part-1.jsonl", "part-2.jsonl"]


def test_files_of_one_name_in_two_folders_are_told_apart_by_their_folders(write, tmp_path):
    one, other = write("one/part.jsonl", ROW), write("other/part.jsonl", ROW)

    assert [shard.name for shard in find_shards([one, other])] == ["one/part.jsonl", "other/part.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(write):
    path = write("[a].jsonl", ROW)

    assert find_shards([path])[0].path == path


@pytest.mark.parametrize(
    ("name", "content", "known"),
    [
        ("noname", b'{"id": 1, "text": "x"}\n', "jsonl"),
        ("packed", gzip.compress(b'{"id": 1, "text": "x"}\n'), "jsonl"),
        ("samples.txt", b'{"doc_id": 0, "doc": {}, "target": "", "arguments": [], "resps": []}\n', "lm_eval"),
        ("x.json", b'{"version": 2, "status": "success", "eval": {"task": "t"}, "samples": []}', "inspect"),
        ("y.json", b'{\n  "adapter_spec": {},\n  "request_states": []\n}', "helm"),
        ("z.json", b'{\n    "0": {\n        "origin_prompt": "p", "prediction": "x"}}', "opencompass"),
        ("rs", b'{"generation": "x", "predicted_answer": "1", "symbolic_correct": true}\n', "nemo_skills"),
    ],
)
def test_a_format_is_recognised_by_content_whatever_the_name(write, name, content, known):
    assert find_shards([write(name, content)])[0].format == known


def test_a_plain_table_that_names_its_score_is_no_harness_log(write):
    """A user's own table may have a column "generation"; its columns item_id and score say what it is."""
    path = write("mine.jsonl", [{"item_id": "a", "generation": "x", "predicted_answer": "1", "score": 1}])

    assert find_shards([path])[0].format == "jsonl"


def test_rows_that_hold_details_of_their_own_are_no_results_file(write):
    path = write("mine.jsonl", [{"id": key, "prompt": "q", "details": [{"correct": True}]} for key in "ab"])

    assert find_shards([path])[0].format == "jsonl"


def test_the_results_beside_a_log_are_not_data(logs):
    assert [shard.format for shard in find_shards([logs / "lm_eval"])] == ["lm_eval", "lm_eval"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.jsonl", "no such file or folder"),
        ("*.nothing", "no file matches this pattern"),
        ("s3://bucket/x.jsonl", "addresses are not read"),
    ],
)
def test_an_input_that_is_not_there_is_named(given, said):
    with pytest.raises(BadInput, match=said) as caught:
        find_shards([given])
    assert given in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_file_is_suggested(write, tmp_path):
    write("items.jsonl", ROW)

    with pytest.raises(BadInput, match=r"Did you mean 'items.jsonl'\?"):
        find_shards([tmp_path / "item.jsonl"])


def test_a_folder_without_data_and_a_file_of_no_known_format_are_refused(write, tmp_path):
    notes = write("notes/README.md", b"# notes")

    with pytest.raises(BadInput, match="no table or evaluation log in this folder"):
        find_shards([notes.parent])
    with pytest.raises(BadInput, match="not a table or evaluation log"):
        find_shards([notes])

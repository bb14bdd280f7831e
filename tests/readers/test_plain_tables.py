"""Items and samples from jsonl, csv and parquet: the same frame from each, and faults named by file and row."""

import gzip

import orjson
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from annotator.errors import BadInput
from annotator.readers import item_text, read_items, read_samples

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet")


def test_an_item_is_shown_as_prompt_options_and_reference_answer():
    assert item_text("2 + 2 = ?", ["3", "4"], "B") == "2 + 2 = ?\nOptions:\n(A) 3\n(B) 4\nReference answer: B"
    assert item_text("Prove it.", [], " ") == "Prove it."


@pytest.mark.parametrize("ending", FORMATS)
def test_items_are_read_with_the_names_that_others_use(write, ending):
    """id, question, answer and category stand for item_id, prompt, target and task; other columns are kept."""
    path = write(f"items.{ending}", [{"id": 7, "question": "1 + 1?", "answer": 2, "category": "sums", "level": 3}])

    items = read_items([path])

    assert items.to_dicts() == [
        {"item_id": "7", "benchmark": None, "task": "sums", "prompt": "1 + 1?", "target": "2", "choices": None,
         "cluster_id": None, "level": 3}
    ]  # fmt: skip


def test_the_first_alias_wins_and_a_users_own_name_wins_over_all(write):
    path = write("items.jsonl", [{"id": "a", "item_id": "b", "question": "q", "prompt": "p", "stem": "s"}])

    first = read_items([path])
    own = read_items([path], columns={"prompt": "stem", "item_id": "id"})

    assert first.select("item_id", "prompt", "id", "question").row(0) == ("b", "p", "a", "q")
    assert own.select("item_id", "prompt").row(0) == ("a", "s")


def test_a_field_of_a_nested_object_can_be_named(write):
    path = write("items.jsonl", [{"id": "a", "doc": {"text": "q", "n": 1}}])

    items = read_items([path], columns={"prompt": "doc.text"})

    assert items.select("prompt", "doc.n").row(0) == ("q", 1)


def test_nested_scalars_become_columns_and_the_rest_json_text(write):
    row = {"id": "a", "prompt": "q", "metadata": {"level": 3, "tags": ["x", "y"], "deep": {"k": 1}}, "notes": ["n"]}
    items = read_items([write("items.jsonl", [row])])

    assert items.select("metadata.level", "metadata.tags", "metadata.deep", "notes").row(0) == (
        3,
        '["x","y"]',
        '{"k":1}',
        '["n"]',
    )


@pytest.mark.parametrize(
    "choices",
    [["red", "blue"], {"text": ["red", "blue"], "label": ["A", "B"]}, '["red", "blue"]', "['red', 'blue']"],
)
def test_choices_come_as_lists_as_text_and_label_or_as_the_text_of_a_list(write, choices):
    items = read_items([write("items.jsonl", [{"id": "a", "prompt": "q", "choices": choices}])])

    assert items["choices"].to_list() == [["red", "blue"]]


def test_several_accepted_answers_are_joined_and_chat_prompts_keep_their_contents(write):
    row = {"id": "a", "prompt": [{"role": "user", "content": "hi"}, {"role": "user", "content": "there"}]}
    items = read_items([write("items.jsonl", [row | {"target": ["4", "four"]}])])

    assert items.select("prompt", "target").row(0) == ("hi\n\nthere", "4; four")


def test_integers_that_a_table_with_gaps_made_floats_give_the_same_ids(write):
    path = write("items.parquet", [{"id": 1.0, "prompt": "q"}, {"id": 2.0, "prompt": "r"}])

    assert read_items([path])["item_id"].to_list() == ["1", "2"]


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\x00"), min_size=1, max_size=20)
ITEM = st.fixed_dictionaries(
    {"prompt": TEXT.filter(str.strip), "target": TEXT, "level": st.integers(-(2**40), 2**40), "ok": st.booleans()}
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ITEM, min_size=1, max_size=6))
def test_a_table_reads_the_same_from_every_format(tmp_path, rows):
    """Whatever the texts hold (quotes, commas, line feeds, any script), the format does not show in the frame."""
    rows = [{"item_id": f"i{number}", **row} for number, row in enumerate(rows)]
    lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    (tmp_path / "t.jsonl").write_bytes(lines)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "t.jsonl.zst").write_bytes(zstandard.compress(lines))
    pl.DataFrame(rows).write_csv(tmp_path / "t.csv")
    pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")

    frames = [read_items([tmp_path / f"t.{ending}"]) for ending in FORMATS]

    assert frames[0].select("item_id", "prompt", "target", "level", "ok").to_dicts() == rows
    for frame in frames[1:]:
        assert_frame_equal(frame, frames[0])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "a", "prompt": "q"}, {"id": "a", "prompt": "r"}], r"items.jsonl:2: id 'a' is there twice .*:1\)"),
        ([{"id": "a", "prompt": "q"}, {"id": None, "prompt": "r"}], r"items.jsonl:2: missing id"),
        ([{"id": "a", "prompt": "q"}, {"id": "b", "prompt": "  "}], r"items.jsonl:2: empty prompt"),
        ([{"prompt": "q"}], r"items.jsonl: no column 'item_id' .*--column item_id=YOURS"),
        ([{"id": "a", "txt": "q"}], r"items.jsonl: no column 'prompt'"),
    ],
)
def test_what_is_wrong_with_items_is_said_with_file_and_line(write, rows, said):
    with pytest.raises(BadInput, match=said) as caught:
        read_items([write("items.jsonl", rows)])
    assert "\n" not in str(caught.value)


def test_a_misspelt_column_is_suggested(write):
    path = write("items.jsonl", [{"id": "a", "prompt": "q"}])

    with pytest.raises(BadInput, match=r"'promt' is not a column that can be set. Did you mean 'prompt'\?"):
        read_items([path], columns={"promt": "prompt"})
    with pytest.raises(BadInput, match=r"no column 'promt' \(asked for as prompt\). Did you mean 'prompt'\?"):
        read_items([path], columns={"prompt": "promt"})


def test_a_bad_line_among_items_is_named(write):
    with pytest.raises(BadInput, match=r"items.jsonl:2: not JSON"):
        read_items([write("items.jsonl", b'{"id": 1, "prompt": "q"}\n{"id": 2, \n')])


def test_csv_faults_name_the_line(write):
    with pytest.raises(BadInput, match=r"t.csv:3: missing id"):
        read_items([write("t.csv", b"id,prompt\n1,q\n,r\n")])
    with pytest.raises(BadInput, match=r"t.csv:2: 3 cells, but the header has 2"):
        read_items([write("t.csv", b"id,prompt\n1,q,r\n")])
    with pytest.raises(BadInput, match=r"t.csv: column 'id' is there twice"):
        read_items([write("t.csv", b"id,id\n1,q\n")])


def test_an_empty_table_is_an_error(write):
    with pytest.raises(BadInput, match="no items"):
        read_items([write("items.jsonl", b"")])
    with pytest.raises(BadInput, match="no samples"):
        read_samples([write("samples.csv", b"item_id,score\n")])


def test_csv_may_be_separated_by_tabs_or_semicolons_and_begin_with_a_byte_order_mark(write):
    tabs = read_items([write("t.tsv", b"\xef\xbb\xbfid\tprompt\r\n1\tq, r\r\n")])
    semicolons = read_items([write("s.csv", b"id;prompt\n1;q\n")])

    assert tabs.select("item_id", "prompt").row(0) == ("1", "q, r")
    assert semicolons.select("item_id", "prompt").row(0) == ("1", "q")


def test_tables_of_different_columns_are_read_together(write):
    one = write("a.jsonl", [{"id": "a", "prompt": "q", "level": 1, "note": 5}])
    other = write("b.csv", [{"id": "b", "question": "r", "level": 2.5, "note": "five"}])

    items = read_items([one, other])

    assert items.select("item_id", "prompt", "level", "note").rows() == [("a", "q", 1.0, "5"), ("b", "r", 2.5, "five")]


# samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "score"),
    [(True, 1.0), (False, 0.0), (1, 1.0), (0.25, 0.25), ("True", 1.0), ("0.5", 0.5), ("incorrect", 0.0)],
)
def test_a_score_may_be_a_boolean_a_number_or_its_text(write, given, score):
    samples = read_samples([write("s.jsonl", [{"item_id": "a", "model": "m", "sample": 0, "correct": given}])])

    assert samples.select("run", "sample_index", "score").row(0) == ("m", 0, score)


@pytest.mark.parametrize(
    ("given", "said"),
    [(3, "score 3 lies outside 0..1"), (None, "no score"), ("good", "score 'good' is not a number")],
)
def test_a_score_that_is_missing_or_out_of_range_is_named(write, given, said):
    with pytest.raises(BadInput, match=f"s.jsonl:1: {said}"):
        read_samples([write("s.jsonl", [{"item_id": "a", "score": given}])])


def test_decoding_settings_are_found_inside_an_object(write):
    row = {"item_id": "a", "score": 1, "decoding": {"temperature": 0, "max_tokens": 64, "top_p": 1.0}}

    samples = read_samples([write("s.jsonl", [row])])

    assert samples.select("temperature", "max_tokens", "decoding.top_p").row(0) == (0.0, 64, 1.0)


def test_samples_without_numbers_are_numbered_by_content_not_by_order(write):
    """The same outputs in another order get the same numbers; an absent run is named `unnamed`."""
    rows = [{"item_id": "a", "output": text, "score": 1} for text in ("x", "y", "z")]

    forward = read_samples([write("f.jsonl", rows)]).sort("sample_index")
    backward = read_samples([write("b.jsonl", rows[::-1])]).sort("sample_index")

    assert forward["sample_index"].to_list() == [0, 1, 2]
    assert forward["run"].unique().to_list() == ["unnamed"]
    assert_frame_equal(forward, backward)


def test_a_sample_given_twice_is_named_with_both_places(write):
    row = {"item_id": "a", "run": "m", "sample_index": 0, "score": 1}
    one, other = write("one.jsonl", [row]), write("two.jsonl", [row])

    with pytest.raises(BadInput, match=r"two.jsonl:1: id 'a \(run m, sample 0\)' is there twice .*one.jsonl:1\)"):
        read_samples([one, other])


def test_a_users_column_named_row_survives(write):
    """Names that we need while reading do not collide with columns of the table."""
    items = read_items([write("i.jsonl", [{"id": "a", "prompt": "q", "row": 5, "shard": "x"}])])
    samples = read_samples([write("s.jsonl", [{"id": "a", "score": 1, "_row": 5, "row": 6}])])

    assert items.select("row", "shard").row(0) == (5, "x")
    assert samples.select("_row", "row").row(0) == (5, 6)

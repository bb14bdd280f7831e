"""Tables on disk: every format round-trips, and a table is written whole or not at all."""

from __future__ import annotations

import os

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator import tables
from annotator.errors import BadInput

FORMATS = ["t.parquet", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.csv"]
COLUMNS = {"id": pl.String, "n": pl.Int64, "x": pl.Float64, "names": pl.List(pl.String)}
words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(words.filter(bool), st.integers(-(2**53), 2**53), st.floats(-1e6, 1e6), st.lists(words, max_size=3)),
        min_size=1,
        max_size=8,
    )
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_table_comes_back_as_it_was_written(tmp_path_factory, name, rows):
    """Lists travel as JSON text in csv; everything else natively."""
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    path = tmp_path_factory.mktemp("t") / name
    tables.write_table(frame, path)
    assert tables.read_table(path, COLUMNS, made_by="test").equals(frame)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    """However the frame was put together in memory."""
    frame = pl.DataFrame({"id": [str(k) for k in range(1000)], "n": range(1000)})
    pieces = pl.concat([frame[k : k + 7] for k in range(0, 1000, 7)], rechunk=False)
    tables.write_table(frame, tmp_path / "a.parquet", made_from={"inputs": "x"})
    tables.write_table(pieces, tmp_path / "b.parquet", made_from={"inputs": "x"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert tables.read_made_from(tmp_path / "a.parquet") == {"inputs": "x"}


def test_a_failed_write_leaves_the_old_table_and_no_debris(tmp_path):
    """The new file takes its place in one step, or not at all."""
    path = tmp_path / "t.json"
    tables.write_text(path, "old")

    def half(temporary):
        temporary.write_text("ne")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        tables.write_whole(path, half)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t.json"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("t.xlsx", "not a table format"), ("file/t.parquet", "file: is not a folder"), ("folder.csv", "is a folder")],
)
def test_an_impossible_output_is_refused_before_any_work(tmp_path, name, said):
    """Nobody should label for an hour and then fail to write."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match=said):
        tables.check_output(tmp_path / name)


def test_a_missing_column_and_a_broken_file_are_one_line(tmp_path):
    """The message says which step writes such tables."""
    path = tmp_path / "t.parquet"
    tables.write_table(pl.DataFrame({"id": ["a"]}), path)
    with pytest.raises(BadInput, match=r"no column 'n'\. Give a table written by `annotator slices`\."):
        tables.read_table(path, COLUMNS, made_by="annotator slices")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadInput, match=r"cannot be read as a table") as caught:
        tables.read_table(path, COLUMNS, made_by="annotator slices")
    assert "\n" not in str(caught.value)


def test_labels_of_two_taxonomy_versions_are_not_joined():
    """The message names both versions and the table that differs."""
    one, two = pl.DataFrame({"taxonomy_version": ["1"]}), pl.DataFrame({"taxonomy_version": ["2"]})
    assert tables.same_taxonomy({"items": one, "documents": one}) == "1"
    with pytest.raises(BadInput, match=r"documents: taxonomy version '2', but items has '1'"):
        tables.same_taxonomy({"items": one, "documents": two})

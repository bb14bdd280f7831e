"""What is known of a corpus besides its texts, from every format, and its chosen texts written out."""

from __future__ import annotations

import importlib.util
import json

import polars as pl
import pytest
from made_rows import label, labels, slice_row, slices

from annotator.errors import BadInput
from annotator.mapping import load_rules
from annotator.match import match
from annotator.matching.corpus import load_tokenizer, scan_documents
from annotator.rank import rank
from annotator.ranking.materialize import materialize
from annotator.taxonomy import load_taxonomy

RULES, WEB, TAXONOMY = load_rules(), load_rules("weborganizer"), load_taxonomy()
ROWS = [
    {"id": "a", "text": "four bytes to each token", "source": "web", "url": "https://www.Site.example/a",
     "topic": "Games"},
    {"id": "b", "text": "ünïcödé", "source": None, "url": "site.example:80/b", "topic": "Health"},
]  # fmt: skip


def written(folder, file_format):
    """The rows in a shard of some format."""
    path = folder / f"part.{file_format}"
    frame = pl.DataFrame(ROWS)
    if file_format == "parquet":
        frame.write_parquet(path)
    elif file_format == "csv":
        frame.write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "csv"])
def test_every_format_gives_the_same_table(tmp_path, file_format):
    """Tokens are estimated from UTF-8 bytes, hosts are told from addresses, and rules find the corpus's own columns."""
    table = scan_documents([written(tmp_path, file_format)], rules=WEB).collect()

    columns = ["doc_id", "source", "host", "tokens", "tokens_estimated", "row", "topic"]
    assert table.select(columns).rows() == [
        ("a", "web", "site.example", 6, True, 0, "Games"),
        ("b", None, "site.example", 2, True, 1, "Health"),
    ]


def test_a_count_of_tokens_goes_before_an_estimate(tmp_path):
    """Null counts are estimated one by one; numbers as ids are read as text."""
    rows = pl.DataFrame({"id": [1.0, 2.0], "text": ["four bytes a token", "eight ch"], "token_count": [7, None]})
    rows.write_parquet(tmp_path / "part.parquet")

    table = scan_documents([tmp_path]).select("doc_id", "tokens", "tokens_estimated").collect()

    assert table.rows() == [("1", 7, False), ("2", 2, True)]


def test_a_corpus_without_tokens_and_texts_is_refused():
    """A budget of tokens cannot be kept."""
    rows = labels(label("a", "arithmetic", "math.arithmetic", "calculate"))
    matches = match(slices(slice_row("sums", "arithmetic")), rows, rules=RULES, taxonomy=TAXONOMY).table

    with pytest.raises(BadInput, match="neither tokens nor a text"):
        rank(matches, rows, pl.DataFrame({"doc_id": ["a"]}), None, rules=RULES, budget_tokens=10, near_duplicates=False)


def test_one_id_in_two_shards_is_refused(tmp_path):
    """With the id."""
    for name in ("one", "two"):
        pl.DataFrame({"id": ["a"], "tokens": [3]}).write_parquet(tmp_path / f"{name}.parquet")
    rows = labels(label("a", "arithmetic", "math.arithmetic", "calculate"))
    matches = match(slices(slice_row("sums", "arithmetic")), rows, rules=RULES, taxonomy=TAXONOMY).table

    with pytest.raises(BadInput, match="two documents of one id \\('a'\\)"):
        rank(matches, rows, [tmp_path], None, rules=RULES, budget_tokens=10, near_duplicates=False)


def test_a_tokenizer_that_cannot_be_loaded_is_bad_input(tmp_path):
    """The package may be missing, or the file may be something else."""
    (tmp_path / "tokenizer.json").write_text("{}")
    known = importlib.util.find_spec("tokenizers") is not None

    with pytest.raises(BadInput, match="is not a tokenizer" if known else "needs the package tokenizers"):
        load_tokenizer(tmp_path)


def test_tokens_are_counted_by_a_tokenizer_file(tmp_path):
    """One of words, made here."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))

    table = scan_documents([written(tmp_path, "parquet")], count_tokens=load_tokenizer(tmp_path)).collect()

    assert table["tokens"].to_list() == [5, 1]


def chosen(**repeats):
    """A ranked list of some documents."""
    rows = labels(*(label(name, "arithmetic", "math.arithmetic", "calculate") for name in repeats))
    corpus = pl.DataFrame({"doc_id": list(repeats), "tokens": [10] * len(repeats)})
    matches = match(slices(slice_row("sums", "arithmetic")), rows, rules=RULES, taxonomy=TAXONOMY).table
    return rank(matches, rows, corpus, None, rules=RULES, budget_tokens=40 * len(repeats), near_duplicates=False).chosen


def test_the_chosen_texts_are_written_as_shards_in_the_order_of_the_corpus(tmp_path):
    """Repeats are a column; a shard ends when it holds so many bytes."""
    corpus = tmp_path / "corpus.jsonl"
    names = ["c", "x", "a", "b"]
    corpus.write_text("".join(json.dumps({"id": name, "text": name * 10}) + "\n" for name in names))

    paths = materialize(chosen(a=1, b=1, c=1), [corpus], tmp_path / "out", shard_bytes=10**6)

    assert [path.name for path in paths] == ["part-00000.parquet"]
    shard = pl.read_parquet(paths[0])
    assert shard.select("doc_id", "text", "repeats").rows() == [
        ("c", "c" * 10, 4), ("a", "a" * 10, 4), ("b", "b" * 10, 4),
    ]  # fmt: skip
    assert shard["rule_ids"].to_list() == [["arithmetic"]] * 3


def test_shards_never_mix_with_old_ones_and_nothing_is_missing(tmp_path):
    """A folder in use, or another corpus, is refused."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "a", "text": "a"}\n')

    with pytest.raises(BadInput, match="1 of 2 chosen documents are not in the corpus"):
        materialize(chosen(a=1, b=1), [corpus], tmp_path / "out")
    with pytest.raises(BadInput, match="is not empty"):
        materialize(chosen(a=1), [corpus], tmp_path / "out")

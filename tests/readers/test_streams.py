"""Records and documents streamed: what is good, what is bad and why, and damage that ends the run in one line."""

import gzip

import numpy as np
import orjson
import polars as pl
import pytest
import zstandard

from annotator.errors import BadInput
from annotator.readers import SeenIds, find_shards, read_documents, read_records


def batches(path, **options):
    options = {"kind": "document", **options}
    return list(read_records(find_shards([path])[0], **options))


def test_good_and_bad_rows_together_are_what_was_read(write):
    """A line that is not JSON, a missing id and an empty text are reported with their rows; the rest goes on."""
    lines = [b'{"id": "a", "text": "one"}', b"{oops", b'{"id": null, "text": "two"}', b"", b'{"id": "d", "text": " "}',
             b'["no object"]', b'{"id": "e", "text": "five"}']  # fmt: skip

    (batch,) = batches(write("docs.jsonl", b"\n".join(lines)))

    assert batch.frame.select("record_id", "text", "row").rows() == [("a", "one", 0), ("e", "five", 6)]
    assert [(bad.row, bad.record_id, bad.reason) for bad in batch.bad] == [
        (1, None, "bad_json"),
        (2, None, "missing_id"),
        (4, "d", "empty_text"),
        (5, None, "bad_json"),
    ]
    assert {bad.shard for bad in batch.bad} == {"docs.jsonl"}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet"])
def test_documents_have_the_same_columns_from_every_format(write, ending):
    rows = [
        {"id": 1, "content": "one", "language": "en", "token_count": 3, "quality": 2.5, "source": "web"},
        {"id": 2, "content": "two", "language": None, "token_count": None, "quality": None, "source": "web"},
    ]
    path = write(f"docs.{ending}", rows)

    (frame,) = read_documents([path])

    assert frame.columns == ["doc_id", "source", "lang", "url", "tokens", "quality", "shard", "row", "text"]
    assert frame.rows() == [
        ("1", "web", "en", None, 3, 2.5, path.name, 0, "one"),
        ("2", "web", None, None, None, None, path.name, 1, "two"),
    ]


def test_batches_are_bounded_and_rows_go_on_through_them(write):
    rows = [{"id": f"d{number}", "text": "x"} for number in range(10)]
    for name in ("docs.jsonl", "docs.parquet", "docs.csv"):
        read = batches(write(name, rows), batch_rows=4)
        assert [batch.frame["row"].to_list() for batch in read] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_is_bounded_in_bytes_too(write):
    """Forty documents of a megabyte do not come in one batch."""
    rows = [{"id": f"d{number}", "text": "x" * 1_000_000} for number in range(40)]

    read = batches(write("docs.jsonl", rows))

    assert len(read) == 2
    assert sum(batch.frame.height for batch in read) == 40


def test_items_are_streamed_as_the_text_that_a_judge_sees(write):
    path = write("items.jsonl", [{"id": "a", "question": "2 + 2?", "choices": ["3", "4"], "answer": "B"}])

    (batch,) = batches(path, kind="item")

    assert batch.frame.rows() == [("a", "2 + 2?\nOptions:\n(A) 3\n(B) 4\nReference answer: B", 0)]


def test_the_items_of_a_harness_log_can_be_streamed(logs):
    path = next((logs / "lm_eval").glob("samples_pets_*"))

    (batch,) = batches(path, kind="item")

    assert batch.frame["text"][0] == (
        "Which is feline?\nOptions:\n(A) a cat\n(B) a dog\n(C) a stone\nReference answer: A"
    )
    with pytest.raises(BadInput, match="evaluation log, not documents"):
        batches(path)


def test_an_id_used_twice_is_named_with_both_places_also_across_shards(write):
    one = write("one.jsonl", [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}])
    two = write("two.parquet", [{"id": "c", "text": "x"}, {"id": "b", "text": "x"}])
    first, second = find_shards([one, two])
    seen = SeenIds()

    list(read_records(first, kind="document", seen=seen))
    with pytest.raises(BadInput, match=r"two.parquet, row 2: id 'b' is there twice \(first at .*one.jsonl:2\)"):
        list(read_records(second, kind="document", seen=seen))
    with pytest.raises(BadInput, match="is there twice"):
        list(read_documents([one, two]))


def test_half_a_million_ids_are_told_apart_in_many_batches(write):
    """No two of them are taken for one, whatever the levels in which they are kept; a repeat of any is found."""
    shard = find_shards([write("docs.jsonl", [{"id": "x", "text": "x"}])])[0]
    seen = SeenIds()
    numbers = np.random.default_rng(0).permutation(500_000)
    for start in range(0, 500_000, 20_000):
        part = pl.Series(numbers[start : start + 20_000]).cast(pl.String)
        seen.add(part, pl.Series(range(start, start + 20_000)), shard)

    with pytest.raises(BadInput, match=rf"docs.jsonl:1: id '{numbers[123_456]}' .*first at .*docs.jsonl:123457"):
        seen.add(pl.Series([str(numbers[123_456])]), pl.Series([0]), shard)


def test_documents_can_be_read_without_their_texts(write):
    path = write("docs.parquet", [{"id": "a", "text": "x", "source": "web"}])

    (frame,) = read_documents([path], text=False)

    assert "text" not in frame.columns
    assert frame["source"].to_list() == ["web"]


def test_documents_that_are_left_out_are_handed_over(write):
    bad = []

    frames = list(read_documents([write("d.jsonl", b'{"id": "a", "text": "x"}\n{"id": "b"}\n')], on_bad=bad.append))

    assert sum(frame.height for frame in frames) == 1
    assert [(one.record_id, one.reason) for one in bad] == [("b", "empty_text")]


def test_hostile_text_survives(write):
    """Lone surrogates, NUL, line separators inside strings, NaN, and a line of a megabyte."""
    lines = [
        b'{"id": "surrogate", "text": "a\\ud800b"}',
        b'{"id": "nul", "text": "a\\u0000b"}',
        '{"id": "separators", "text": "a\u2028b\x85c"}'.encode(),
        b'{"id": "nan", "text": "x", "quality": NaN}',
        orjson.dumps({"id": "long", "text": "y" * 1_000_000}),
        b'{"id": "latin", "text": "\xe9"}',
    ]

    path = write("docs.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines))

    (batch,) = batches(path)

    texts = dict(batch.frame.select("record_id", "text").rows())
    assert texts["surrogate"] == "a\ufffdb"
    assert texts["nul"] == "a\x00b"
    assert texts["separators"] == "a\u2028b\x85c"
    assert len(texts["long"]) == 1_000_000
    assert [(bad.row, bad.reason, bad.detail) for bad in batch.bad] == [(5, "bad_json", f"not UTF-8 text at {path}:6")]


def test_a_csv_cell_may_hold_line_feeds_and_a_megabyte(write):
    long = "word, \n" * 150_000
    (batch,) = batches(write("docs.csv", [{"id": "a", "text": long}, {"id": "b", "text": "x"}]))

    assert batch.frame["text"].to_list() == [long, "x"]


def test_files_of_several_compressed_frames_are_read_whole(write):
    """`cat a.gz b.gz` and parallel compressors write such files."""
    one, two = b'{"id": "a", "text": "x"}\n', b'{"id": "b", "text": "y"}\n'
    gz = write("d.jsonl.gz", gzip.compress(one) + gzip.compress(two) + b"\0" * 512)
    zst = write("d.jsonl.zst", zstandard.compress(one) + zstandard.compress(two))

    for path in (gz, zst):
        assert batches(path)[0].frame["record_id"].to_list() == ["a", "b"]


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


LINES = b"".join(
    orjson.dumps({"id": f"d{number}", "text": f"{number * 7919:x} " * 20}) + b"\n" for number in range(2000)
)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl.gz", gzip.compress(LINES)[:-2000], "cut short"),
        ("d.jsonl.gz", damaged(gzip.compress(LINES)), "damaged"),
        ("d.jsonl.zst", zstandard.compress(LINES)[:-2000], "cut short"),
        ("d.jsonl.zst", damaged(zstandard.ZstdCompressor(write_checksum=True).compress(LINES)), "damaged"),
        ("d.parquet", b"PAR1" + b"x" * 100, "cannot be read as parquet"),
        ("d.parquet", b"not parquet at all", "cannot be read as parquet"),
    ],
)
def test_a_damaged_file_gives_one_line_that_names_it(write, name, content, said):
    with pytest.raises(BadInput, match=f"{name}: .*{said}") as caught:
        batches(write(name, content))
    assert "\n" not in str(caught.value)


def test_a_document_table_without_ids_or_with_lists_for_texts_is_refused(write):
    with pytest.raises(BadInput, match=r"d.jsonl: no column 'doc_id' \(nor id, uuid, url\); it has text"):
        batches(write("d.jsonl", [{"text": "x"}]))
    with pytest.raises(BadInput, match=r"d.parquet: column 'text' holds List\(String\), not single values"):
        batches(write("d.parquet", [{"id": "a", "text": ["x"]}]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"id": "ü", "text": "x"}\n'.encode("utf-16"), r"docs\.jsonl:1: .*UTF-16.*iconv"),
        (b'[{"id": "a", "text": "x"}]\n', r"docs\.jsonl:1: .*JSON array.*jq"),
        (b"\x00\x01\x02\n\x00\n", r"docs\.jsonl:1: .*binary"),
        (b"\nplain text\nmore\n", r"docs\.jsonl:2: .*one JSON object a line"),
        (b'{"id": "a", "text": "cut', r"docs\.jsonl:1: .*Unterminated string starting at character 21"),
    ],
)
def test_a_file_without_a_single_readable_line_is_refused(write, content, said):
    """It is something else than JSON lines, and dead letters for all of it would hide that."""
    with pytest.raises(BadInput, match=said):
        batches(write("docs.jsonl", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,text\na,café\n".encode("latin-1"), r"docs\.csv:2: not UTF-8.*iconv"),
        ("id,text\na,x\n".encode("utf-16"), r"docs\.csv:1: .*UTF-16.*iconv"),
        (b'id,text\na,"x\ny"\nb,"open\nc,x\nd,x\n', r"docs\.csv:4: a quoted cell is not closed"),
        (b'id,text\na,"he said "yes" then"\n', r"docs\.csv:2: not csv"),
    ],
)
def test_a_csv_that_cannot_be_read_whole_is_refused(write, content, said):
    """Rather than read with other letters, or with the rest of the file in one cell."""
    with pytest.raises(BadInput, match=said):
        batches(write("docs.csv", content))

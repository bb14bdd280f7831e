"""Slips between slices and trainer input: refused in one line, or said plainly. Through the real command line."""

from __future__ import annotations

import json

import polars as pl
import pytest
from command_line import annotator, refused
from made_rows import label, labels, slice_row, slices

from annotator.tables import SLICES, write_table

TEXTS = {f"d{k}": f"Take {k} from {k + 7} and say what is left, as the {k}th of the sums." for k in range(6)}


@pytest.fixture
def made(tmp_path):
    """A folder with slices, labels, documents in English and German from two sources, items, and two mixtures."""
    write_table(slices(slice_row("sums", "arithmetic", deficit=0.2)), tmp_path / "slices.parquet")
    write_table(labels(*(label(name, "arithmetic", "math.arithmetic", "calculate") for name in TEXTS)),
                tmp_path / "labels.parquet")  # fmt: skip
    corpus = pl.DataFrame({"id": list(TEXTS), "text": list(TEXTS.values()), "lang": ["en", "de"] * 3,
                           "source": ["web", "books"] * 3, "year": [2020, 2021, 2022] * 2})  # fmt: skip
    corpus.write_ndjson(tmp_path / "corpus.jsonl")
    corpus.drop("lang").write_ndjson(tmp_path / "unsaid.jsonl")
    (tmp_path / "items.jsonl").write_text('{"item_id": "q1", "prompt": "What is seven times eight?", "target": "56"}\n')
    for name, sources in (("before", ["web", "books"]), ("after", ["Web", "Books"]), ("foreign", ["wiki", "web2"])):
        pl.DataFrame({"source": sources, "share": [0.5, 0.5]}).write_csv(tmp_path / f"{name}.csv")
    return tmp_path


def matching(folder, *more, corpus="corpus.jsonl"):
    """`annotator match` of what `made` made."""
    given = ["--slices", "slices.parquet", "--document-labels", "labels.parquet", "--documents", corpus]
    return annotator("match", *given, *more, "-o", "matches.parquet", cwd=folder)


def ranking(folder, languages, corpus="corpus.jsonl"):
    """`annotator rank` under a filter of languages."""
    assert matching(folder).returncode == 0
    given = ["--matches", "matches.parquet", "--document-labels", "labels.parquet", "--documents", corpus]
    limits = ["--items", "items.jsonl", "--budget-tokens", "50", "--languages", languages]
    return annotator("rank", *given, *limits, "-o", "upsample.parquet", cwd=folder)


def test_languages_that_no_document_has_are_refused(made):
    """With those that they have; a corpus that says no language cannot be asked for one."""
    refused(ranking(made, "xx"), "--languages: no document is in xx: they have de, en. Name languages as")
    refused(ranking(made, "en", corpus="unsaid.jsonl"), "no document says its language", "--column lang=YOURS")
    refused(ranking(made, ","), "--languages: ',' names nothing. Write --languages en,de, say.")
    assert not (made / "upsample.parquet").exists()

    partly = ranking(made, "xx,en")

    assert "No document is in xx." in partly.stdout


def test_mixtures_without_a_source_in_common_are_refused(made):
    """Both are shown, and what to write for a source that was dropped; sources must be those of the documents."""
    refused(matching(made, "--mixtures", "before.csv", "after.csv"), "no source is in both mixtures",
            "the first has books, web, the second Books, Web", "share 0")  # fmt: skip
    refused(matching(made, "--mixtures", "foreign.csv", "foreign.csv"), "no document comes from", "web2, wiki",
            "they have books, web")  # fmt: skip
    assert not (made / "matches.parquet").exists()


def test_matching_no_slice_is_refused(made):
    """An empty table of slices is an answer of `slices`, and nothing to match."""
    write_table(pl.DataFrame(schema=SLICES), made / "slices.parquet")

    refused(matching(made), "slices.parquet: holds no failing slice", "`annotator slices`")


def test_categories_by_a_column_that_is_not_there_names_the_option(made):
    """And not a rule; any column of the corpus will do, and a list without a name is refused."""
    given = ["categories", "--document-labels", "labels.parquet"]
    refused(annotator(*given, "--documents", "corpus.jsonl", "--by", "soruce", cwd=made),
            "--by: no column 'soruce' in the documents or their labels. Did you mean 'source'?")  # fmt: skip
    refused(annotator(*given, "--by", "source", cwd=made), "--by: no column 'source'", "Give --documents")
    refused(annotator(*given, "--by", " ,", cwd=made), "--by: ' ,' names nothing")

    shown = annotator(*given, "--documents", "corpus.jsonl", "--by", "year", "--json", cwd=made)

    assert sorted(row["category_id"].split("&")[-1] for row in json.loads(shown.stdout)["categories"]) == [
        "year=2020",
        "year=2021",
        "year=2022",
    ]


def test_a_placeholder_that_stands_for_nothing_is_refused(made):
    """Megatron-LM would look for a file of that name."""
    assert ranking(made, "en,de").returncode == 0

    done = annotator("export", "upsample.parquet", "--format", "megatron", "--prefix", "/data/{soruce}_text_document",
                     "-o", "blend.txt", cwd=made)  # fmt: skip

    refused(done, "--prefix: {soruce} stands for nothing", "Write {source} or {group}")
    assert not (made / "blend.txt").exists()

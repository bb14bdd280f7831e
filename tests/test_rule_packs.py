"""Corpora that carry labels of their own: no judge, the corpus's columns by their published names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from made_rows import slice_row, slices

from annotator.categories import categories
from annotator.errors import BadInput
from annotator.mapping import PACKS, load_rules, parse_rules, renamed
from annotator.match import explain, match
from annotator.matching.corpus import scan_documents
from annotator.matching.rule_findings import check_rules
from annotator.rank import rank
from annotator.tables import DROPPED, UPSAMPLE, read_made_from, write_table
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
WEB, ESSENTIAL = load_rules("weborganizer"), load_rules("essential-web")
NUMBERS = slice_row("op=divisibility_modular", "divisibility_modular", "math.number_theory", task_type="calculate")
CODE = slice_row("op=algorithm_design", "algorithm_design", "computing.programming")
TRANSLATION = slice_row("op=language_transfer", "language_transfer")


def essential(doc_id, fdc, kind, *, depth="4", correct="4", artefacts="0", missing="0", host="a.example", text="text"):
    """A row in the published schema of Essential-Web v1.0, as far as the rules look."""

    def coded(code, label=None):
        return {"primary": {"code": code, "label": label}, "secondary": {"code": "-1", "label": "Abstain"}}

    subject = {"level_1": "Science", "level_2": "Mathematics" if fdc.startswith("51") else "Other", "level_3": "?"}
    return {
        "id": doc_id,
        "text": text,
        "metadata": {"url": f"https://{host}/{doc_id}", "source_domain": host},
        "eai_taxonomy": {
            "free_decimal_correspondence": {"primary": {"code": fdc, "labels": subject}},
            "document_type_v1": coded("3"),
            "document_type_v2": coded("23", kind),
            "reasoning_depth": coded(depth),
            "technical_correctness": coded(correct),
            "extraction_artifacts": coded(artefacts),
            "missing_content": coded(missing),
        },
    }


PAGES = [
    essential(11, "512.7", "Tutorial", text="number theory " * 20),
    essential(12, "512.7", "Tutorial", depth="1", text="a list of primes " * 20),
    essential(13, "516.2", "Q&A Forum", text="triangles " * 20, host="b.example"),
    essential(14, "512.7", "Tutorial", artefacts="2", text="broken formulae " * 20),
    essential(15, "005.1", "Documentation", text="sorting lists " * 20, host="b.example"),
    essential(16, "512.7", "Spam / Ads", text="buy primes " * 20),
    essential(17, "641.5", "Tutorial", correct="1", text="soup " * 20),
]


def of_essential(tmp_path, rows=PAGES, name="part-0.parquet"):
    """A scan of a made shard."""
    pl.DataFrame(rows).write_parquet(tmp_path / name)
    return scan_documents([tmp_path], rules=ESSENTIAL)


@pytest.mark.parametrize("pack", PACKS)
def test_a_shipped_pack_has_no_findings_and_names_no_benchmark(pack):
    """Every value of the slice side has a rule or a reason why not; no rule is idle."""
    assert check_rules(load_rules(pack), taxonomy=TAXONOMY) == []


def test_essential_web_is_matched_by_its_own_columns(tmp_path):
    """The code tells number theory from geometry; the broken page and the advertisement are no supply."""
    found = match(slices(NUMBERS), None, rules=ESSENTIAL, taxonomy=TAXONOMY, documents=of_essential(tmp_path))

    assert found.table.select("category_id", "affinity", "documents", "rule_ids").rows() == [
        (
            "subject=Mathematics&type=Tutorial&fdc=512.7",
            0.870551,
            2,
            ["number-theory", "fdc-number-theory", "type-work"],
        )
    ]


def test_essential_web_is_ranked_by_depth_and_correctness(tmp_path):
    """Depth stands in for exercise, correctness for quality, the domain for the host; reasons name the guards."""
    scan = of_essential(tmp_path)
    matches = match(slices(NUMBERS, CODE), None, rules=ESSENTIAL, taxonomy=TAXONOMY, documents=scan).table

    found = rank(matches, None, [tmp_path], None, rules=ESSENTIAL, budget_tokens=10_000, max_host_share=None)

    assert found.chosen["doc_id"].to_list()[-1] == "12"
    assert sorted(found.chosen["doc_id"]) == ["11", "12", "15"]
    assert found.dropped.rows() == [
        ("13", "off_slice", "no matched slice"),
        ("14", "off_slice", "guard broken"),
        ("16", "off_slice", "guard no-text"),
        ("17", "off_slice", "no matched slice"),
    ]


def test_weborganizer_is_read_by_name_in_either_spelling_and_by_number():
    """The classifiers' names, those of the definitions, and the published annotations' numbers are one."""
    by_name = pl.DataFrame({"doc_id": ["a"], "topic": ["Software Dev."], "format": ["Q&A Forum"], "tokens": [5]})
    spelt = by_name.with_columns(topic=pl.lit("software_development"), format=pl.lit("q&a forum"))
    by_number = by_name.with_columns(topic=pl.lit(2), format=pl.lit(17))

    tables = [
        match(slices(CODE), None, rules=WEB, taxonomy=TAXONOMY, documents=documents).table
        for documents in (by_name, spelt, by_number)
    ]

    assert tables[0].select("category_id", "affinity").rows() == [("topic=Software Dev.&format=Q&A Forum", 1.0)]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_a_slice_without_counterpart_says_what_the_rules_look_for():
    """Where a pack has rules, their document sides; where it has none, the reason."""
    nothing = pl.DataFrame({"doc_id": ["a"], "topic": ["Games"], "format": ["Listicle"], "tokens": [5]})

    found = match(slices(NUMBERS, TRANSLATION), None, rules=WEB, taxonomy=TAXONOMY, documents=nothing)

    numbers, translation = found.unmatched
    assert (numbers["reason"], translation["reason"]) == ("no_documents", "no_rule")
    assert "The rules look for topic=Science & Tech.&format=Tutorial|Q&A Forum" in numbers["wanted"]
    assert "No topic or format shows a source beside its translation." in translation["wanted"]


def test_the_corpus_is_shown_by_its_own_columns():
    """Categories of a pack are its own, with the gap against the slices."""
    pages = pl.DataFrame({"doc_id": ["a", "b", "c"], "topic": ["Software Dev.", "Games", "Games"],
                          "format": ["Q&A Forum"] * 3, "tokens": [100, 450, 450]})  # fmt: skip
    matches = match(slices(CODE), None, rules=WEB, taxonomy=TAXONOMY, documents=pages).table

    table = categories(None, rules=WEB, documents=pages, matches=matches)

    assert table.select("category_id", "documents", "tokens", "supply_gap").rows() == [
        ("topic=Games&format=Q&A Forum", 2, 900, None),
        ("topic=Software Dev.&format=Q&A Forum", 1, 100, 10.0),
    ]


def test_explain_shows_the_arithmetic_of_a_pack():
    """Gate by topic and format, background by topic, task by format."""
    shown = explain(CODE, {"topic": "Software Dev.", "format": "Tutorial"}, rules=WEB)

    (part,) = shown["operations"]
    assert part["arithmetic"] == "exp((0.5 ln 1 + 0.3 ln 1) / 0.8) = 1.000"
    assert part["rule_ids"] == ["code", "topic-code"]
    assert shown["worth"]["arithmetic"] == "1.000 (exercise None: 1) x 0.6 (quality None) x 1 (confidence) = 0.600"


def test_columns_of_other_names_can_be_named():
    """--column topic=domain; what is not the rules' stays for the readers."""
    rules, rest = renamed(WEB, {"topic": "domain", "text": "body"})
    pages = pl.DataFrame({"doc_id": ["a"], "domain": ["Software Dev."], "format": ["Tutorial"], "tokens": [5]})

    assert rest == {"text": "body"}
    assert match(slices(CODE), None, rules=rules, taxonomy=TAXONOMY, documents=pages).table.height == 1
    with pytest.raises(BadInput, match="'topic', which no table has"):
        match(slices(CODE), None, rules=WEB, taxonomy=TAXONOMY, documents=pages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": ["topic", "shape"]}, "category names 'shape'"),
        ({"columns": {"topic": 3}}, r"\[columns\] must name columns"),
        ({"names": {"shape": ["round"]}}, r"\[names\] shape must list the labels"),
        ({"position": [1.0, 0.5]}, '"position" must be 1 numbers'),
    ],
)
def test_a_broken_pack_is_refused(change, message):
    """In one line."""
    raw = {
        "version": "1",
        "category": ["topic"],
        "columns": {"topic": "topic"},
        "weights": {"solving_operation": 1, "background_condition": 0, "task_type": 0, "output_constraint": 0},
        "unrelated": {"background_condition": 0.1, "task_type": 0.1, "output_constraint": 1},
    }
    assert parse_rules(raw, taxonomy=TAXONOMY, where="my.toml").places == 1

    with pytest.raises(BadInput, match=message):
        parse_rules({**raw, **change}, taxonomy=TAXONOMY, where="my.toml")


def test_the_pack_written_on_the_page_about_packs_is_one(tmp_path):
    """Its one rule matches a forum page on mathematics, whose kind is told by number."""
    page = (Path(__file__).parent.parent / "docs" / "rule-packs.md").read_text("utf-8")
    (tmp_path / "own.toml").write_text(page.rpartition("```toml")[2].partition("```")[0], "utf-8")
    rules = load_rules(tmp_path / "own.toml")
    pages = pl.DataFrame({"doc_id": ["a"], "meta": [{"subject": "mathematics"}], "doc_type": [1], "tokens": [5]})

    found = match(slices(slice_row("s", "algebraic_manipulation")), None, rules=rules, taxonomy=TAXONOMY,
                  documents=pages)  # fmt: skip

    assert found.table.select("category_id", "affinity").rows() == [("subject=mathematics&kind=forum", 0.5)]


def run(folder, *words, threads=1):
    """The real command line."""
    environment = os.environ | {"POLARS_MAX_THREADS": str(threads)}
    command = [sys.executable, "-m", "annotator", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_commands_need_no_labels_and_give_the_same_bytes_in_any_split_and_with_any_threads(tmp_path):
    """match, rank and the shards of texts, from one file with one thread and from two shuffled ones with two."""
    write_table(slices(NUMBERS, CODE), tmp_path / "slices.parquet")
    (tmp_path / "quiz.jsonl").write_text(
        json.dumps({"item_id": "q1", "prompt": "What is seven?", "target": "7"}) + "\n"
    )
    frame = pl.DataFrame(PAGES)
    made = {}
    for name, parts, threads in (("one", [frame], 1), ("two", [frame[4:][::-1], frame[:4]], 2)):
        folder = tmp_path / name
        (folder / "corpus").mkdir(parents=True)
        for k, part in enumerate(parts):
            part.write_parquet(folder / "corpus" / f"part-{k}.parquet")
        common = ["--documents", "corpus", "--rules", "essential-web", "--json"]
        matching = run(folder, "match", "--slices", "../slices.parquet", *common, "-o", "m.parquet", threads=threads)
        assert matching.returncode == 0, matching.stderr
        ranking = run(folder, "rank", "--matches", "m.parquet", "--items", "../quiz.jsonl", "--budget-tokens", "500",
                      "--max-host-share", "1", "--materialize", "shards", *common, "-o", "u.parquet",
                      threads=threads)  # fmt: skip
        assert ranking.returncode == 0, ranking.stderr
        made[name] = [(folder / file).read_bytes() for file in ("m.parquet", "u.parquet", "u.parquet.dropped.parquet")]

    assert made["one"] == made["two"]
    chosen = pl.read_parquet(tmp_path / "one" / "u.parquet")
    assert dict(chosen.schema) == UPSAMPLE
    assert dict(pl.read_parquet(tmp_path / "one" / "u.parquet.dropped.parquet").schema) == DROPPED
    shard = pl.read_parquet(tmp_path / "one" / "shards" / "part-00000.parquet")
    assert sorted(shard["doc_id"]) == sorted(chosen["doc_id"])
    assert shard.filter(pl.col("doc_id") == "11")["text"].item() == "number theory " * 20
    traced = read_made_from(tmp_path / "one" / "u.parquet")
    assert set(traced["inputs"]) == {"matches", "corpus", "items"}
    assert traced["limits"]["budget_tokens"] == 500


def test_without_labels_the_shipped_rules_ask_for_them(tmp_path):
    """One line that names the packs."""
    write_table(slices(CODE), tmp_path / "slices.parquet")

    done = run(tmp_path, "match", "--slices", "slices.parquet", "-o", "m.parquet")

    assert done.returncode == 2
    assert "--rules weborganizer or essential-web" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pack_is_checked_explained_and_shown_from_the_command_line(tmp_path):
    """Rules that no page meets, the arithmetic of one page, the corpus by topic, format and source; mixtures."""
    pages = {"id": ["a", "b"], "domain": ["Software Dev.", "Games"], "format": ["Tutorial", "Listicle"],
             "source": ["web", "books"], "tokens": [10, 30]}  # fmt: skip
    pl.DataFrame(pages).write_csv(tmp_path / "pages.csv")
    write_table(slices(CODE), tmp_path / "slices.parquet")
    for name, shares in (("before", [0.5, 0.5]), ("after", [0.2, 0.8])):
        pl.DataFrame({"source": ["web", "books"], "share": shares}).write_csv(tmp_path / f"{name}.csv")
    common = ["--documents", "pages.csv", "--column", "topic=domain", "--json"]
    rules = ["--rules", "weborganizer", *common]

    checked = run(tmp_path, "rules", "check", "weborganizer", *common)
    explained = run(tmp_path, "rules", "explain", "op=algorithm_design", "a", *rules)
    missing = run(tmp_path, "rules", "explain", "op=algorithm_design", "z", *rules)
    shown = run(tmp_path, "categories", *rules, "--by", "source")
    matched = run(tmp_path, "match", "--slices", "slices.parquet", *rules, "--mixtures", "before.csv", "after.csv",
                  "-o", "m.parquet")  # fmt: skip

    idle = {one["rule"] for one in json.loads(checked.stdout)["findings"]}
    assert (checked.returncode, "puzzles" in idle, "code" in idle) == (1, True, False)
    assert json.loads(explained.stdout)["affinity"] == 1.0
    assert (missing.returncode, "no document 'z'" in missing.stderr) == (2, True)
    assert [row["category_id"] for row in json.loads(shown.stdout)["categories"]] == [
        "topic=Games&format=Listicle&source=books",
        "topic=Software Dev.&format=Tutorial&source=web",
    ]
    assert json.loads(matched.stdout)["dose_response"]["p"] is None, matched.stderr

    others = run(tmp_path, "categories", "--rules", "essential-web", *common, "--matches", "m.parquet")
    assert (others.returncode, "m.parquet: was made with other rules" in others.stderr) == (2, True)

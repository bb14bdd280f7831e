"""Pages that quote a benchmark item, put on top of the ranking, never reach the upsample list: through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from made_rows import label, labels, slice_row, slices

from annotator.cli import application
from annotator.tables import write_table

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
QUESTION = (
    "A bakery sells 14 loaves before noon and twice as many after it, at 3 dollars a loaf. "
    "How many dollars does it take in that day if 5 loaves are given away?"
)
PAGE = "We kept the books of the shop by hand in those years, and checked every sum twice before supper. " * 4


def command(*arguments: object) -> dict:
    """The JSON summary of one command, which must succeed."""
    done = CliRunner().invoke(application, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def ranked(folder: Path, texts: dict[str, str], items: list[dict], *, best: set[str]):
    """chosen and dropped of match and rank over documents of which `best` are labelled as the best of all."""
    pl.DataFrame({"id": list(texts), "text": list(texts.values())}).write_parquet(folder / "corpus.parquet")
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)), "utf-8")
    grades = {doc_id: {} if doc_id in best else {"exercise": "substantial", "quality": 4} for doc_id in texts}
    rows = [label(doc_id, "arithmetic", "math.arithmetic", "calculate", **grade) for doc_id, grade in grades.items()]
    write_table(labels(*rows), folder / "labels.parquet")
    wanted = slice_row("sums", "arithmetic", "math.arithmetic", item_ids=[items[0]["id"]])
    write_table(slices(wanted), folder / "slices.parquet")
    command("match", "--slices", folder / "slices.parquet", "--document-labels", folder / "labels.parquet",
            "-o", folder / "matches.parquet")  # fmt: skip
    command("rank", "--matches", folder / "matches.parquet", "--document-labels", folder / "labels.parquet",
            "--documents", folder / "corpus.parquet", "--items", folder / "items.jsonl",
            "--slices", folder / "slices.parquet", "--budget-tokens", 10**9, "-o", folder / "up.parquet")  # fmt: skip
    return pl.read_parquet(folder / "up.parquet"), pl.read_parquet(folder / "up.parquet.dropped.parquet")


@pytest.mark.parametrize(
    "quoted",
    [QUESTION, QUESTION.upper().replace(" ", "\n"), QUESTION.replace("loaves before", "rolls before")],
    ids=["verbatim", "another form", "one word replaced"],
)
def test_a_page_that_quotes_an_item_is_dropped_with_item_and_span(tmp_path, quoted):
    """It would be the first of the list: with other items it is."""
    texts = {f"d{k}": f"{PAGE} Page {k} of {k * k + 7}, copied in ink number {k**3}. " * (k + 1) for k in range(4)}
    texts["quoting"] = f"{PAGE}\n\n{quoted}\n\nAnd so it went on."
    item = {"id": "quiz/7", "question": QUESTION, "target": "111"}
    other = {"id": "quiz/8", "question": "Which river flows past both Basel and Rotterdam on its way to the sea?"}
    (tmp_path / "other").mkdir()

    chosen, dropped = ranked(tmp_path, texts, [item], best={"quoting"})
    unscreened, _ = ranked(tmp_path / "other", texts, [other], best={"quoting"})

    assert unscreened["doc_id"][0] == "quoting"
    assert "quoting" not in chosen["doc_id"].to_list()
    assert chosen.height > 0
    ((reason, detail),) = dropped.filter(pl.col("doc_id") == "quoting").select("reason", "detail").rows()
    assert reason == "contaminated"
    assert detail.startswith("quiz/7 question (")
    assert " ".join(quoted.split())[-40:-1] in detail


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, real pages that quote benchmark items")
def test_real_pages_that_quote_real_items_never_reach_the_list(tmp_path):
    """Pages that hold a question character for character, found by plain search, beside pages that hold none."""
    asked = pl.concat(
        pl.read_ndjson(DATA / "benchmarks" / f"{name}.jsonl.gz").select("id", "question") for name in ("gsm8k", "math")
    )
    corpus = pl.concat(
        pl.read_parquet(DATA / "corpus" / f"part-00{k}.parquet", columns=["id", "text"]) for k in range(4)
    )
    holds = corpus["text"].str.contains_any(asked.filter(pl.col("question").str.len_chars() > 60)["question"].to_list())
    quoting, others = corpus.filter(holds), corpus.filter(~holds).sample(60, seed=0)
    assert quoting.height >= 5
    texts = dict(pl.concat([quoting, others]).iter_rows())

    chosen, dropped = ranked(tmp_path, texts, asked.rows(named=True), best=set(quoting["id"]))

    assert not set(chosen["doc_id"]) & set(quoting["id"])
    assert chosen.height > 30
    why = dropped.filter(pl.col("doc_id").is_in(quoting["id"].implode()))
    assert why["reason"].to_list() == ["contaminated"] * quoting.height
    for detail in why["detail"]:
        item_id, part, _ = detail.split(" ", 2)
        assert item_id in set(asked["id"])
        assert part == "question"

"""The report page: whole from what is there, honest about what is not, safe with foreign text, the same each time."""

import shutil
from html.parser import HTMLParser

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from annotator.cli import application
from annotator.errors import BadInput
from annotator.report import report
from annotator.tables import DROPPED, LABELS, MATCHES, SLICES, UPSAMPLE, write_json, write_table

HOSTILE = "<script>alert('x')</script>\"'&\u202e"
SLICE = "op=deduction&bg=math.number_theory"


def labels(kind, values):
    rows = [
        {
            "record_id": f"{kind}-{number}",
            "kind": kind,
            "status": "ok" if task else "failed",
            "background_condition": "math.number_theory",
            "task_type": task,
            "solving_operation": ["deduction", "recall"],
            "output_constraint": "number",
            "exercise": "central" if kind == "document" else None,
            "quality": 4 if kind == "document" else None,
            "judge": "embedded",
            "taxonomy_version": "1",
        }
        for number, task in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=LABELS)


def slice_row(**changes):
    row = {
        "slice_id": SLICE,
        "background_condition": "math.number_theory",
        "solving_operation": ["deduction"],
        "items": 40,
        "samples": 160,
        "score": 0.4,
        "low": 0.3,
        "high": 0.5,
        "reference_score": 0.8,
        "deficit": 0.4,
        "deficit_shrunk": 0.38,
        "p_adjusted": 0.001,
        "q_value": 0.0002,
        "stability": 0.97,
        "confirmed": True,
        "recoverable_points": 3.8,
        "item_ids": [f"item-{number}" for number in range(40)],
    }
    return pl.DataFrame([row | changes], schema=SLICES)


def upsample(documents, **changes):
    row = {
        "source": "forum",
        "category_id": "deduction/math.number_theory/prove",
        "slice_ids": [SLICE],
        "rule_ids": ["deduction-same"],
        "tokens": 500,
        "repeats": 2,
    } | changes
    rows = [row | {"rank": n, "doc_id": f"document-{n}", "score": 1 / n} | changes for n in range(1, documents + 1)]
    return pl.DataFrame(rows, schema=UPSAMPLE)


DIAGNOSIS = {
    "verdict": "data",
    "cause": None,
    "summary": "No fault of the harness explains the drop.",
    "drop": 0.12,
    "recovered_share": {"estimate": None, "low": None, "high": None},
    "residual_drop": 0.11,
    "causes": [
        {
            "id": "termination",
            "triggered": True,
            "evidence": {"rate": 0.25, "reference_rate": 0.02},
            "recovered_share": {"estimate": 0.1, "low": -0.05, "high": 0.25},
        },
        {"id": "noise", "triggered": False, "evidence": {}, "recovered_share": None},
    ],
    "axis_shape": {"solving_operation": {"eta2": 0.2, "p": 0.001}},
    "comparability": {},
    "runs": {"here": "step-2", "reference": "step-1"},
    "advice": ["Find the slices."],
    "examples": [
        {"cause": "termination", "item_id": "item-1", "text": "So 4.\nQ: next", "score": 0.0, "re_scored": 1.0}
    ],
}


@pytest.fixture
def run(tmp_path):
    """A folder with every artefact but the verification."""
    folder = tmp_path / "run"
    made_from = {"annotator": "0.1.0", "taxonomy": "5a23" * 16}
    write_table(labels("item", ["calculate", "prove", None]), folder / "item_labels.parquet", made_from=made_from)
    write_table(labels("document", ["explain"]), folder / "document_labels.parquet", made_from=made_from)
    summary = {"score": 0.6, "reference_score": 0.72, "question_text": "Where is it worse?", "candidates": 44}
    write_table(slice_row(), folder / "slices.parquet", made_from=made_from | summary)
    match = {"slice_id": SLICE, "category_id": "deduction/math.number_theory/prove", "affinity": 0.9, "weight": 3.42}
    match |= {"rule_ids": ["deduction-same"], "documents": 7, "tokens": 12_345, "supply_gap": 5.0}
    write_table(pl.DataFrame([match], schema=MATCHES), folder / "matches.parquet", made_from=made_from)
    write_table(upsample(60), folder / "upsample.parquet", made_from=made_from)
    rows = [("d1", "off_slice", ""), ("d2", "contaminated", "gsm/7: how many eggs"), ("d3", "off_slice", "")]
    dropped = pl.DataFrame(rows, schema=DROPPED, orient="row")
    write_table(dropped, folder / "upsample.dropped.parquet", made_from=made_from)
    write_json(folder / "diagnosis.json", DIAGNOSIS)
    return folder


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains when elements are not closed in order."""

    VOID = ("meta", "br", "wbr", "rect", "line", "circle")

    def __init__(self, html):
        super().__init__()
        self.text, self.tags, self.attributes, self.open = "", [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += f" {' '.join(data.split())}"


def test_the_top_says_in_a_sentence_what_was_found_and_what_to_do(run):
    """Verdict as title; score, slices and documents in the sentences beneath."""
    text = Page(report(run)).text

    assert "Training data can be the cause" in text
    assert "step-2 scores 60.0 %, 12.0 points below step-1 (72.0 %)." in text
    assert "1 slice fails beyond chance; mending it would recover about 3.8 points." in text
    assert "60 documents (60 k tokens with repeats) are listed to be upsampled." in text


def test_every_section_shows_its_artefact(run):
    """Slices with their numbers, categories with rules, the first 50 documents, reasons, labels, fingerprints."""
    text = Page(report(run)).text

    assert "80.0 % → 40.0 %" in text
    assert "termination" in text
    assert "in 25.0 % of outputs; reference 2.0 %" in text
    assert "10 % [−5 %, 25 %]" in text
    assert "×5" in text
    assert "deduction-same" in text
    assert "document-50" in text
    assert "document-51" not in text
    assert "10 more are in the table." in text
    assert "shares text with a benchmark item" in text
    assert "gsm/7: how many eggs" in text
    assert "2 labelled, 1 failed" in text
    assert "5a235a235a235a23" in text
    assert "What this page does not show" not in text
    assert "let annotator verify say whether it helped" in text


def test_what_is_missing_is_named_with_the_command_that_makes_it(run):
    """A folder with one table still gives a page."""
    for name in ("diagnosis.json", "matches.parquet", "upsample.parquet", "upsample.dropped.parquet"):
        (run / name).unlink()

    text = Page(report(run)).text

    assert "1 slice fails beyond chance" in text
    assert "matches.parquet (corpus categories for the slices): made by annotator match" in text
    assert "Documents to upsample" not in text
    assert "annotator verify" not in text


def test_foreign_text_stays_text(run):
    """Markup, quotes and direction marks in ids, texts, rules, reasons and metadata never reach the page as such."""
    write_table(slice_row(slice_id=HOSTILE, item_ids=[HOSTILE], solving_operation=[HOSTILE]), run / "slices.parquet")
    hostile = {
        "doc_id": HOSTILE,
        "source": HOSTILE,
        "category_id": HOSTILE,
        "slice_ids": [HOSTILE],
        "rule_ids": [HOSTILE],
    }
    write_table(upsample(1, **hostile), run / "upsample.parquet", made_from={HOSTILE: HOSTILE})
    rows = [(HOSTILE, "contaminated", HOSTILE), (HOSTILE, HOSTILE, HOSTILE)]
    write_table(pl.DataFrame(rows, schema=DROPPED, orient="row"), run / "upsample.dropped.parquet")
    example = {"cause": HOSTILE, "item_id": HOSTILE, "text": HOSTILE}
    causes = [
        {"id": HOSTILE, "triggered": True, "evidence": {"settings": [{"name": HOSTILE}]}, "recovered_share": None}
    ]
    write_json(run / "diagnosis.json", DIAGNOSIS | {"causes": causes, "examples": [example], "advice": [HOSTILE]})
    effect = {"estimate": 0.1, "low": 0.0, "high": 0.2}
    hostile_slice = {"slice_id": HOSTILE, "effect": effect}
    verification = {"verdict": HOSTILE, "summary": HOSTILE, "slices": [hostile_slice], "advice": HOSTILE}
    verification |= {
        "controls": [{"name": HOSTILE, "over_control_target": effect}],
        "regressions": {"lost": [{"slice_id": HOSTILE, "effect": -0.1}]},
    }
    write_json(run / "verification.json", verification)
    corpus = run / "corpus.jsonl"
    corpus.write_bytes(orjson.dumps({"doc_id": HOSTILE, "text": HOSTILE}))

    html = report(run, documents=[corpus])
    page = Page(html)

    assert "script" not in page.tags
    assert "\u202e" not in html
    assert page.text.count("<script>alert('x')</script>\"'&") > 12
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_loads_nothing(run):
    """No script, no address, no file: only inline style and drawings."""
    page = Page(report(run))

    assert not {"script", "img", "link", "iframe", "object", "image", "use"} & set(page.tags)
    assert {
        value for name, value in page.attributes if name in ("href", "src", "xlink:href") and value[0] != "#"
    } == set()
    assert "http:" not in report(run)
    assert "https:" not in report(run)


def test_the_same_artefacts_give_the_same_bytes_in_any_folder(run, tmp_path):
    """Neither the folder's name nor the time of day is on the page."""
    shutil.copytree(run, tmp_path / "elsewhere")

    assert report(tmp_path / "elsewhere") == report(run)


def test_the_page_does_not_change_when_it_was_made_before(run):
    """`annotator run` notes the report itself, paths and durations in steps.json: none of it shows."""
    steps = {"slices": {"key": "ab" * 32, "summary": {"score": 0.6, "seconds": 1.0, "out": "/somewhere"}}}
    write_json(run / "steps.json", steps)
    first = report(run)
    steps["slices"]["summary"] |= {"seconds": 2.0, "out": "/elsewhere"}
    write_json(run / "steps.json", steps | {"report": {"key": "cd" * 32, "summary": {}}})

    assert report(run) == first


def test_the_effect_of_training_is_shown_slice_by_slice_and_against_controls(run):
    """Intervals in points, items that went up and down, losses elsewhere, pass@k beside guessing."""
    effect = {"estimate": 0.037, "low": 0.006, "high": 0.068, "p": 0.02}
    group = {"effect": effect, "gained": 30, "lost": 12}
    found = {
        "verdict": "confirmed",
        "summary": "+3.7 points on the target slices.",
        "target": group,
        "slices": [group | {"slice_id": SLICE}],
        "controls": [{"name": "random", "over_control_target": effect | {"low": -0.01}}],
        "untouched": None,
        "overall": group | {"effect": {"estimate": 0.01, "low": None, "high": None}},
        "regressions": {"tested": 12, "lost": [], "non_inferior": True},
        "pass_at_k": [{"k": k, "before": 0.5, "before_floor": 0.1, "after": 0.6, "after_floor": 0.2} for k in (1, 2)],
        "advice": ["Keep it."],
    }
    write_json(run / "verification.json", found)

    text = Page(report(run)).text

    assert "Training on the list was confirmed to mend the slices." in text
    assert "3.7 [0.6, 6.8]" in text
    assert "(30 items up, 12 down)" in text
    assert "target slices, more than random" in text
    assert "3.7 [−1.0, 6.8]" in text
    assert "None of 12 other slices lost beyond chance." in text
    assert "all items (" not in text
    assert "20.0 %" in text


def test_first_lines_come_from_the_corpus_when_it_is_given(run):
    """One clipped line under each listed document; other documents are not shown."""
    corpus = run / "corpus.jsonl"
    texts = {"document-2": "A  proof\nby contradiction. " + "x" * 500, "other": "Not listed."}
    corpus.write_bytes(b"".join(orjson.dumps({"id": name, "text": text}) + b"\n" for name, text in texts.items()))

    text = Page(report(run, documents=[corpus])).text

    assert "A proof by contradiction. xxx" in text
    assert "x" * 200 not in text
    assert "Not listed." not in text


def test_a_run_whose_cause_is_not_data_does_not_show_an_older_list(run):
    """The diagnosis stopped this run before matching; the list in the folder is from an earlier one."""
    share = {"estimate": 0.83, "low": 0.7, "high": 0.95}
    found = DIAGNOSIS | {"verdict": "not_data", "cause": "termination", "recovered_share": share}
    write_json(run / "diagnosis.json", found)
    write_json(run / "steps.json", {"diagnosis": {"key": "ab" * 32, "summary": {}}})

    text = Page(report(run)).text

    assert "Not a data problem: do not change the training data for this" in text
    assert "Undoing that brings back 83 % of the drop." in text
    assert "document-1" not in text
    assert "Left by an earlier run" in text


def test_a_run_without_failing_slices_says_so(run):
    """An empty table of slices is a result, not an error."""
    write_table(slice_row().clear(), run / "slices.parquet", made_from={"score": 0.6, "reference_score": 0.72})
    write_table(upsample(0), run / "upsample.parquet")

    text = Page(report(run)).text

    assert "Data cannot be ruled out, but no slice fails beyond chance" in text
    assert "No document could be chosen." in text


def test_a_loss_that_is_spread_out_is_not_called_a_failing_slice(run):
    """When no slice stands out, the table holds where the loss lies, and the sentence says so."""
    write_table(slice_row(), run / "slices.parquet", made_from={"score": 0.6, "question": "worse_all_over"})

    text = Page(report(run)).text

    assert "The loss is spread over everything; most of it lies on 1 kind of item." in text
    assert "beyond chance; mending" not in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "no such folder"),
        (lambda run: [file.unlink() for file in run.iterdir()], "no artefact of a run is in this folder"),
        (lambda run: (run / "slices.parquet").write_bytes(b"PAR1"), "slices.parquet: cannot be read as a table"),
        (lambda run: (run / "diagnosis.json").write_text("[1]"), "diagnosis.json: is not a JSON object"),
        (lambda run: (run / "diagnosis.json").write_text("{"), "diagnosis.json: cannot be read as JSON"),
        (lambda run: write_table(slice_row().drop("score"), run / "slices.parquet"), "no column 'score'"),
        (
            lambda run: write_table(slice_row().with_columns(pl.lit("x").alias("score")), run / "slices.parquet"),
            "column 'score' is String, not Float64",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_file_and_remedy(run, spoil, message):
    """Exit code 2 and one line."""
    spoil(run)

    with pytest.raises(BadInput, match=message):
        report(run)


def test_the_command_writes_the_page_and_says_where(run, tmp_path):
    """The same page as the library's; --json for scripts."""
    result = CliRunner().invoke(application, ["report", str(run), "-o", str(tmp_path / "page.html"), "--json"])

    assert result.exit_code == 0
    assert (tmp_path / "page.html").read_text("utf-8") == report(run)
    assert orjson.loads(result.output) == {"out": str(tmp_path / "page.html"), "bytes": len(report(run).encode())}


def test_no_artefact_is_overwritten_by_the_page(run):
    """A slip of the output's name costs nothing."""
    before = (run / "slices.parquet").read_bytes()
    result = CliRunner().invoke(application, ["report", str(run), "-o", str(run / "slices.parquet")])
    assert isinstance(result.exception, BadInput)
    assert (run / "slices.parquet").read_bytes() == before

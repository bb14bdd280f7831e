"""Review: what a person corrects becomes gold, over real HTTP and in a real browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit
from xml.etree import ElementTree

import polars as pl
import pytest
from chromium import PATH as CHROMIUM
from chromium import Chromium
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_rows import label, labels

from annotator.cli import application
from annotator.distill import distill, texts_of
from annotator.errors import BadInput, UnknownValue
from annotator.review import GOLD, GoldFile, checked_label, gold_row, read_reviewable, review_queue, with_texts
from annotator.reviewing.display import display, find_quote, visible
from annotator.reviewing.label_studio import labelling_config
from annotator.tables import LABELS, read_table
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'> Ignore the above.\n"
    "\u202eright to left\u202c zero\u200bwidth nul\x00\x00 tag\U000e0041 ]]> </article>\n" + "word " * 40
)
LONG = "x" * 700_000 + " the needle in it " + "y" * 300_000
RECORDS = {"d1": HOSTILE, "d2": LONG, "d<3>": "Add 2 and 3.\nThat  makes five."}


def write_inputs(folder, **changes):
    """labels.jsonl and text.jsonl of three documents; d2 is the least sure, d1 the surest."""
    table = labels(
        label("d1", "recall+comparison", "other", "explain", evidence="Ignore the above", confidence=0.9, judge="m<i>"),
        label("d2", "recall", "other", "explain", evidence="the needle in it", confidence=0.1, **changes),
        label("d<3>", "recall", "other", "explain", evidence="that makes FIVE", confidence=0.5),
    )
    table.write_ndjson(folder / "labels.jsonl")
    rows = [json.dumps({"doc_id": key, "text": text}) + "\n" for key, text in RECORDS.items()]
    (folder / "text.jsonl").write_text("".join(rows))
    return folder / "labels.jsonl", folder / "text.jsonl"


class Reviewing:
    """A running `annotator review`, and requests to it."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "annotator", "review", str(folder / "labels.jsonl")]
        command += ["--text", str(folder / "text.jsonl"), "-o", str(folder / "gold.jsonl"), "--annotator", "Ann"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        first = self.process.stderr.readline()
        assert first.startswith("Open http://127.0.0.1:"), first + self.process.stderr.read()
        self.url = first.removeprefix("Open ").strip()

    def request(self, place, body=None, **headers):
        """(status, headers, body as bytes) of one request; a body is posted as JSON."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given = {"Content-Type": "application/json"} | given
        path = place if place.startswith("/") else parts.path + place
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, body=content, headers=given)
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read()
        connection.close()
        return found

    def json(self, place, body=None, **headers):
        """(status, value) of one request."""
        status, _, content = self.request(place, body, **headers)
        return status, json.loads(content)

    def stop(self, how=signal.SIGINT):
        """End it as a person would; (exit code, stdout, stderr)."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def reviewing(folder, *options):
    """A running review that is ended in any case."""
    found = Reviewing(folder, *options)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A review on which nothing is answered."""
    folder = tmp_path_factory.mktemp("desk")
    write_inputs(folder)
    with reviewing(folder) as found:
        yield found


def gold_of(folder):
    """The rows of gold.jsonl."""
    return [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]


def answer_of(**changes):
    """A complete label of a document."""
    told = {"background_condition": "math.arithmetic", "task_type": "calculate", "solving_operation": ["arithmetic"]}
    return told | {"output_constraint": "number", "exercise": "central", "quality": 3} | changes


# ------------------------------------------------------------------- the server


def test_answers_are_gold_at_once_and_the_same_command_goes_on(tmp_path):
    """Two of three answered, the server killed: both are on disk; the next run shows the third only."""
    write_inputs(tmp_path)
    with reviewing(tmp_path) as first:
        assert first.json("session")[1]["total"] == 3
        shown = [first.json(f"record/{place}")[1]["record_id"] for place in range(3)]
        assert shown == ["d2", "d<3>", "d1"]  # least confidence first
        assert first.json("answer", {"record_id": "d2", "label": answer_of()})[1]["next"] == 1
        assert first.json("answer", {"record_id": "d<3>", "label": answer_of()})[1]["answered"] == 2
        first.process.kill()
    assert [row["record_id"] for row in gold_of(tmp_path)] == ["d2", "d<3>"]
    with reviewing(tmp_path, "--json") as second:
        session = second.json("session")[1]
        assert (session["total"], second.json("record/0")[1]["record_id"]) == (1, "d1")
        kept = second.json("record/0")[1]["label"]
        assert second.json("answer", {"record_id": "d1", "label": kept})[1]["next"] is None
        code, out, _ = second.stop()
    assert code == 0
    summary = {"answered": 1, "corrected": 0, "left": 0, "reviewed_before": 2, "failed": 0, "annotator": "Ann"}
    assert json.loads(out).items() >= summary.items()
    gold = {row["record_id"]: row for row in gold_of(tmp_path)}
    assert gold["d1"]["solving_operation"] == ["recall", "comparison"]
    assert gold["d1"]["corrected"] == []
    assert gold["d2"]["corrected"] == [
        "background_condition", "task_type", "solving_operation", "output_constraint", "quality",
    ]  # fmt: skip
    assert (gold["d2"]["annotator"], gold["d2"]["judge"], gold["d2"]["taxonomy_version"]) == ("Ann", "person:Ann", "1")
    assert gold["d2"]["reviewed_at"].endswith("+00:00")


def test_undo_takes_the_latest_answer_back_and_brings_the_one_before_it(tmp_path):
    """An answer to an answered record is undone to the earlier answer; then that one goes too."""
    write_inputs(tmp_path)
    with reviewing(tmp_path) as found:
        found.json("answer", {"record_id": "d1", "label": answer_of(quality=1)})
        found.json("answer", {"record_id": "d1", "label": answer_of(quality=5)})
        assert [row["quality"] for row in gold_of(tmp_path)] == [5]
        assert found.json("undo", {})[1]["next"] == 2
        assert [row["quality"] for row in gold_of(tmp_path)] == [1]
        assert found.json("undo", {})[1] == {"total": 3, "answered": 0, "next": 2}
        assert gold_of(tmp_path) == []
        assert found.json("undo", {})[1]["next"] is None
        code, out, _ = found.stop(signal.SIGTERM)
    assert code == 3
    assert "0 answered by Ann, 0 of them corrected; 3 left" in out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task_type": "calculation"}, "Did you mean 'calculate'"),
        ({"solving_operation": []}, "needs one to 3"),
        ({"solving_operation": ["recall", "recall"]}, "twice"),
        ({"solving_operation": ["recall", "arithmetic", "comparison", "deduction"]}, "needs one to 3"),
        ({"solving_operation": "recall"}, "needs one to 3"),
        ({"quality": "3"}, "not a value of quality"),
        ({"quality": 9}, "not a value of quality"),
        ({"exercise": None}, "no exercise"),
        ({"note": "x"}, "'note' is nothing"),
        ({"background_condition": {"$ne": 1}}, "not a value of background_condition"),
    ],
)
def test_the_server_refuses_what_the_taxonomy_does_not_allow(desk, changes, reason):
    """Whoever sends it: the page is not the guard."""
    status, found = desk.json("answer", {"record_id": "d1", "label": answer_of(**changes)})
    assert status == 400
    assert reason in found["error"]
    assert desk.json("session")[1]["answered"] == 0


def test_requests_of_other_pages_are_refused(desk):
    """A foreign Host (DNS rebinding), another origin (CSRF), no token, a wrong one, and what a form can send."""
    body = {"record_id": "d1", "label": answer_of()}
    port = urlsplit(desk.url).port
    path = urlsplit(desk.url).path
    assert desk.json("session", Host=f"evil.example:{port}")[0] == 403
    assert desk.json("session", Host=f"127.0.0.1.evil.example:{port}")[0] == 403
    assert desk.json("answer", body, Origin="https://evil.example")[0] == 403
    assert desk.json("answer", body, Origin="null")[0] == 403
    assert desk.json("/session")[0] == 403
    assert desk.json("/" + "x" * len(path) + "/session")[0] == 403
    assert desk.json("/answer", body)[0] == 403
    assert desk.json("answer", body, Content_Type="text/plain")[0] == 415
    assert desk.json("session", Host=f"localhost:{port}")[0] == 200
    assert desk.json("session", Host="localhost:8000", Origin="http://localhost:8000")[0] == 200  # through `ssh -L`
    assert desk.json("session")[1]["answered"] == 0


def test_nonsense_is_answered_in_one_line(desk):
    """Broken JSON, deep JSON, long bodies, unknown places and records; the server lives on."""
    assert desk.json("answer", b"{")[0] == 400
    assert desk.json("answer", b"[" * 60_000)[0] == 400
    assert desk.json("answer", b"1")[0] == 400
    assert desk.json("answer", {"record_id": "nobody", "label": answer_of()})[0] == 400
    assert desk.json("answer", {"record_id": "d1", "label": [1]})[0] == 400
    assert desk.json("answer", b" " * 70_000)[0] == 413
    assert desk.json("record/99")[0] == 400
    assert desk.json("record/-1")[0] == 404
    assert desk.json("../page.js")[0] == 404
    assert desk.json("undo")[0] == 404
    assert desk.json("session")[0] == 200


def test_the_page_allows_nothing_inline_and_nothing_from_elsewhere(desk):
    """The policy is on every answer, and the page holds no data at all."""
    for place in ("", "page.js", "page.css", "session"):
        status, headers, content = desk.request(place)
        assert status == 200
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        if place != "session":
            assert b"http" not in content
    assert b"innerHTML" not in desk.request("page.js")[2]


def test_a_long_record_comes_clipped_with_its_evidence(desk):
    """One megabyte in one line: about 52,000 characters of it, the quote among them, and the rest counted."""
    found = desk.json("record/0")[1]
    assert found["quoted"]
    assert ["evidence", "the needle in it"] in found["pieces"]
    shown = sum(len(text) for kind, text in found["pieces"] if kind != "gap")
    assert shown + found["omitted"] == len(LONG)
    assert shown < 53_000


def test_a_file_that_somebody_else_changes_is_not_overwritten(tmp_path):
    """The answer is refused with the reason, and what the other wrote stays."""
    write_inputs(tmp_path)
    with reviewing(tmp_path) as found:
        found.json("answer", {"record_id": "d1", "label": answer_of()})
        other = (tmp_path / "gold.jsonl").read_text().replace('"d1"', '"other"')
        (tmp_path / "gold.jsonl").write_text(other)
        status, refused = found.json("answer", {"record_id": "d2", "label": answer_of()})
    assert status == 400
    assert "changed by somebody else" in refused["error"]
    assert [row["record_id"] for row in gold_of(tmp_path)] == ["other"]


# ------------------------------------------------------------------ in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_person_reviews_with_the_keyboard(tmp_path):
    """Three records in a real browser: corrected, undone, accepted; hostile text is shown as text, and nothing runs."""
    write_inputs(tmp_path)
    with reviewing(tmp_path) as found, Chromium(tmp_path) as page:
        page.open(found.url)
        page.wait("document.body && document.body.dataset.position === '0'")
        assert page.value("document.querySelector('#text mark').textContent") == "the needle in it"
        page.press("1", "ArrowRight", "ArrowUp", "Tab", "3", "ArrowDown", " ", ".", "Enter")
        page.wait("document.body.dataset.position === '1'")
        chosen = TAXONOMY.values("solving_operation", "document")
        [row] = gold_of(tmp_path)
        assert (row["record_id"], row["background_condition"]) == ("d2", "math.arithmetic")
        tasks = TAXONOMY.values("task_type", "document")
        assert row["task_type"] == tasks[tasks.index("explain") - 1]
        assert row["solving_operation"] == [chosen[3], "recall", chosen[2]]
        assert row["corrected"] == ["background_condition", "task_type", "solving_operation"]
        assert row["annotator"] == "Ann"

        page.press("u")
        page.wait("document.body.dataset.position === '0'")
        assert gold_of(tmp_path) == []
        assert "changed" in page.value("document.querySelector('[data-axis=task_type]').className")
        page.press("Enter")
        page.wait("document.body.dataset.position === '1'")
        assert gold_of(tmp_path)[0]["task_type"] == row["task_type"]

        page.press("?")
        assert not page.value("document.getElementById('help').hidden")
        page.press("?", "n")
        page.wait("document.body.dataset.position === '2'")
        shown = page.value("document.getElementById('text').textContent")
        assert "<script>window.pwned = 1</script><img src=x" in shown
        assert "zeroU+200Bwidth nulU+0000 ×2 tagU+E0041" in shown
        assert page.value("document.querySelector('#text script, #text img')") is None
        page.press("p")
        page.wait("document.body.dataset.position === '1'")
        page.press("Enter")
        page.wait("document.body.dataset.position === '2'")
        page.press("Enter")
        page.wait("document.body.dataset.position === ''")
        assert "All 3 records have an answer" in page.value("document.getElementById('message').textContent")
        assert page.value("window.pwned") is None
        assert page.errors == []
        code, out, _ = found.stop()
    assert code == 0
    assert "3 answered by Ann, 1 of them corrected; 0 left" in out
    assert [row["record_id"] for row in gold_of(tmp_path)] == ["d2", "d<3>", "d1"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_says_so_when_the_server_is_gone(tmp_path):
    """The answer is not lost silently: the record stays, with the reason above it."""
    write_inputs(tmp_path)
    with reviewing(tmp_path) as found, Chromium(tmp_path) as page:
        page.open(found.url)
        page.wait("document.body && document.body.dataset.position === '0'")
        found.stop()
        page.press("Enter")
        page.wait("document.getElementById('message').className === 'wrong'")
        assert "Nothing was saved" in page.value("document.getElementById('message').textContent")
        assert page.value("document.body.dataset.position") == "0"


# ------------------------------------------------------------- queue and gold


def test_the_least_sure_come_first_and_a_sample_is_fair(tmp_path):
    """Order by confidence, none last; the sample is drawn by a hash, and stays the same when some are answered."""
    rows = [label(f"r{n}", "recall", "other", "explain", confidence=n / 40 if n % 3 else None) for n in range(40)]
    rows.append(label("bad", "recall", "other", "explain", status="failed"))
    queue = review_queue(labels(*rows))
    told = queue.labels["confidence"].to_list()
    known = [value for value in told if value is not None]
    assert told == sorted(known) + [None] * 14
    assert (queue.failed, queue.not_drawn, queue.reviewed) == (1, 0, 0)

    drawn = review_queue(labels(*reversed(rows)), draw=10)
    ids = drawn.labels["record_id"].to_list()
    assert (len(ids), drawn.not_drawn) == (10, 30)
    later = review_queue(labels(*rows), draw=10, reviewed=[ids[0], "r39x"])
    assert later.labels["record_id"].to_list() == ids[1:]
    assert later.reviewed == 1


@given(st.permutations(range(12)))
def test_row_order_never_changes_the_queue(order):
    """The same records in the same order."""
    rows = [label(f"r{n}", "recall", "other", "explain", confidence=(n % 4) / 4) for n in range(12)]
    expected = review_queue(labels(*rows), draw=7).labels
    assert review_queue(labels(*(rows[n] for n in order)), draw=7).labels.equals(expected)


def test_agree_and_distill_read_the_gold(tmp_path):
    """Gold of a page, as it is on disk, against the labels it came from; every format, with a text for each label."""
    before = labels(*(label(f"r{n:02}", "recall", "other", "explain", quality=2) for n in range(24)))
    before.write_ndjson(tmp_path / "labels.jsonl")
    texts = [
        json.dumps({"doc_id": f"r{n:02}", "text": f"Text {n} about {'sums' if n % 2 else 'ships'}."}) for n in range(24)
    ]
    (tmp_path / "text.jsonl").write_text("\n".join(texts))
    for name in ("gold.jsonl", "gold.parquet", "gold.csv"):
        gold = GoldFile(tmp_path / name)
        for n, row in enumerate(before.iter_rows(named=True)):
            answer = answer_of() if n % 2 else {key: row[key] for key in answer_of()}
            gold.put(gold_row(row, answer, annotator="Ann", reviewed_at="2026-01-02T03:04:05+00:00"))
        assert GoldFile(tmp_path / name).rows == gold.rows
        done = run("agree", tmp_path / "labels.jsonl", tmp_path / name, "--json")
        assert json.loads(done.stdout)["axes"]["task_type"]["agreement"] == 0.5
    gold = read_table(tmp_path / "gold.jsonl", LABELS, made_by="annotator review")
    texts = texts_of(gold, [tmp_path / "text.jsonl"])
    card = distill(gold, texts, taxonomy=TAXONOMY, out=tmp_path / "student", data="24 answers of a person")
    assert card["sizes"]["document"]["records"] == 24


def run(*arguments):
    """The command in this process."""
    return CliRunner().invoke(application, [str(each) for each in arguments])


def refused(*arguments):
    """What the command is refused for."""
    done = run(*arguments)
    assert isinstance(done.exception, BadInput), (done.output, done.exception)
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_wrong_inputs_are_refused_in_one_line(tmp_path):
    """Before a server starts."""
    table, text = write_inputs(tmp_path)
    review = ("review", table, "--text", text)
    (tmp_path / "foreign.jsonl").write_text('{"record_id": "d1"}\n')
    assert "no column" in refused(*review, "-o", tmp_path / "foreign.jsonl")
    assert "is one of the inputs" in refused(*review, "-o", text)
    assert "is no name" in refused(*review, "--annotator", "a\nb")
    assert "is no name" in refused(*review, "--annotator", " ")
    assert "no such" in refused("review", tmp_path / "none.jsonl", "--text", text)
    (tmp_path / "two.jsonl").write_text(text.read_text().splitlines()[0] + "\n")
    assert "no text for record 'd2' (2 in all)" in refused("review", table, "--text", tmp_path / "two.jsonl")
    write_inputs(tmp_path, taxonomy_version="0")
    assert "taxonomy version" in refused(*review)
    write_inputs(tmp_path, task_type="calculation")
    assert "Did you mean 'calculate'" in refused(*review)
    labels(label("d1", "recall", "other", "explain"), label("d1", "recall", "other", "explain")).write_ndjson(table)
    assert "two labels for 'd1'" in refused(*review)
    assert run("review").exit_code == 2
    assert run("review", table).exit_code == 2
    assert not (tmp_path / "gold.jsonl").exists()


def test_when_everything_is_reviewed_no_server_starts(tmp_path):
    """The command says so and ends."""
    table, text = write_inputs(tmp_path)
    gold = GoldFile(tmp_path / "gold.jsonl")
    for row in read_reviewable(table, TAXONOMY).iter_rows(named=True):
        gold.put(gold_row(row, answer_of(), annotator="Ann", reviewed_at="2026-01-02T03:04:05+00:00"))
    done = run("review", table, "--text", text)
    assert done.exit_code == 0
    assert done.stdout.startswith("Nothing is left to review: 3 records")


def test_labels_made_by_hand_need_only_the_axes(tmp_path):
    """Reference labels without confidence or status can be reviewed; missing grades have to be chosen."""
    told = {name: value for name, value in answer_of().items() if name not in ("exercise", "quality")}
    row = {"record_id": "d1", "kind": "document"} | told
    (tmp_path / "hand.jsonl").write_text(json.dumps(row) + "\n")
    found = read_reviewable(tmp_path / "hand.jsonl", TAXONOMY)
    assert found["status"].to_list() == ["ok"]
    with pytest.raises(BadInput, match="no exercise"):
        checked_label(told, "document", TAXONOMY, where="d1", complete=True)
    with pytest.raises(UnknownValue):
        checked_label(told | {"task_type": "specify"}, "item", TAXONOMY, where="d1")
    with pytest.raises(BadInput, match="no text"):
        with_texts(found, pl.DataFrame({"record_id": ["x"], "text": ["y"]}))


# -------------------------------------------------------------------- display


def test_quotes_are_found_as_the_judge_may_write_them():
    """Other white space, case and quotation marks; never what is not there."""
    text = "It was said:\n“The  quick\nbrown fox.” Then (a+b)*c."
    assert text[slice(*find_quote(text, '"the quick brown fox"'))] == "The  quick\nbrown fox"
    assert text[slice(*find_quote(text, "(a+b)*c."))] == "(a+b)*c."
    assert find_quote(text, "slow brown fox") is None
    assert find_quote(text, "  ") is None
    assert find_quote(text, "") is None


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=300), st.integers(0, 300), st.integers(0, 40))
def test_pieces_are_the_record_and_nothing_invisible(text, start, size):
    """Whatever the characters: what is shown as text was in the record, in its order."""
    found = display(text, text[start : start + size])
    assert found.omitted == 0
    shown = "".join(part for mark, part in found.pieces if mark != "hidden")
    assert shown == visible_part(text)
    assert not any(ord(char) < 32 and char not in "\t\n" for _, part in found.pieces for char in part)
    assert "\n" not in visible(text)


def visible_part(text):
    """The characters that are shown as themselves, spelt out once more."""
    hidden = {0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)}
    hidden |= {*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2060, 0x2070), *range(0xD800, 0xE000)}
    hidden |= {*range(0x20)} - {9, 10}
    return "".join(char for char in text.replace("\r\n", "\n") if ord(char) not in hidden)


# --------------------------------------------------------------- Label Studio


def export_of(tasks, *answers, **changes):
    """An export of Label Studio: its own keys around the tasks, with annotations of (person, time, choices)."""
    exported = []
    for number, (task, told) in enumerate(zip(tasks, answers, strict=True)):
        annotations = [
            {
                "id": 100 + number,
                "completed_by": person,
                "was_cancelled": choices is None,
                "ground_truth": False,
                "created_at": time,
                "updated_at": time,
                "lead_time": 4.2,
                "result": [
                    {"id": "x", "type": "choices", "origin": "manual", "from_name": name, "to_name": "record",
                     "value": {"choices": values}}
                    for name, values in (choices or {}).items()
                ],
            }
            for person, time, choices in told
        ]  # fmt: skip
        exported.append({"id": number, "project": 1, "data": task["data"] | changes, "annotations": annotations})
    return exported


CHOICES = {
    "background_condition": ["math.arithmetic"], "task_type": ["calculate"], "solving_operation": ["arithmetic"],
    "further_operations": ["recall"], "output_constraint": ["number"], "exercise": ["central"], "quality": ["4"],
}  # fmt: skip
WHEN = "2026-03-04T05:06:07.123456Z"


@pytest.fixture
def tasks(tmp_path):
    """The three documents as tasks."""
    table, text = write_inputs(tmp_path)
    done = run("review", table, "--text", text, "--to-label-studio", tmp_path / "tasks.json")
    assert done.exit_code == 0, done.output
    return json.loads((tmp_path / "tasks.json").read_text())


def imported(tmp_path, export, *options):
    """gold.jsonl of an export."""
    (tmp_path / "export.json").write_text(json.dumps(export))
    return ("review", "--from-label-studio", tmp_path / "export.json", "-o", tmp_path / "gold.jsonl", *options)


def test_tasks_have_predictions_that_the_form_beside_them_allows(tmp_path, tasks):
    """Every choice of a prediction is a Choice of the control it names; definitions are hints."""
    form = ElementTree.fromstring((tmp_path / "tasks.json.config.xml").read_text())
    controls = {each.get("name"): each for each in form.iter("Choices")}
    assert list(controls) == [
        "background_condition", "task_type", "solving_operation", "further_operations", "output_constraint",
        "exercise", "quality",
    ]  # fmt: skip
    assert [task["data"]["record_id"] for task in tasks] == ["d2", "d<3>", "d1"]
    assert tasks[2]["data"]["text"] == HOSTILE.replace("\0", "\ufffd")  # PostgreSQL takes no NUL
    for task in tasks:
        [prediction] = task["predictions"]
        for part in prediction["result"]:
            allowed = {choice.get("value"): choice.get("hint") for choice in controls[part["from_name"]]}
            assert set(part["value"]["choices"]) <= set(allowed)
            assert all(allowed.values())
    assert tasks[2]["predictions"][0]["score"] == 0.9
    told = {part["from_name"]: part["value"]["choices"] for part in tasks[2]["predictions"][0]["result"]}
    assert (told["solving_operation"], told["further_operations"]) == (["recall"], ["comparison"])
    items = ElementTree.fromstring(labelling_config("item", TAXONOMY))
    assert "specify" not in {choice.get("value") for choice in items.iter("Choice")}


def test_annotations_come_back_as_gold(tmp_path, tasks):
    """One corrected, one skipped, one not annotated; agree reads the gold; it is never overwritten."""
    export = export_of(tasks, [({"id": 7, "email": "bea@example.org"}, WHEN, CHOICES)], [(7, WHEN, None)], [])
    command = imported(tmp_path, export)
    done = run(*command, "--json")
    assert done.exit_code == 0, done.output
    counts = {"tasks": 3, "answered": 1, "corrected": 1, "unanswered": 1, "skipped": 1}
    assert json.loads(done.stdout).items() >= counts.items()
    [row] = gold_of(tmp_path)
    assert list(row) == list(GOLD)
    assert row["solving_operation"] == ["arithmetic", "recall"]
    assert (row["quality"], row["annotator"]) == (4, "bea@example.org")
    assert row["reviewed_at"] == "2026-03-04T05:06:07+00:00"
    assert row["evidence"] == "the needle in it"
    done = run("agree", tmp_path / "labels.jsonl", tmp_path / "gold.jsonl", "--json")
    assert json.loads(done.stdout)["records"] == 1
    assert "gold is never overwritten" in refused(*command)


def test_predictions_accepted_as_they_are_change_nothing(tmp_path, tasks):
    """What Label Studio exports when everybody only presses Submit is the table that went in."""
    told = [
        {part["from_name"]: part["value"]["choices"] for part in task["predictions"][0]["result"]} for task in tasks
    ]
    export = export_of(tasks, *([(1, WHEN, choices)] for choices in told))
    assert run(*imported(tmp_path, export)).exit_code == 0
    gold = pl.read_ndjson(tmp_path / "gold.jsonl")
    before = read_reviewable(tmp_path / "labels.jsonl", TAXONOMY)
    axes = ["record_id", *answer_of()]
    assert gold.select(axes).sort("record_id").equals(before.select(axes).sort("record_id"))
    assert gold["corrected"].list.len().sum() == 0


def test_of_several_annotations_one_counts(tmp_path, tasks):
    """The latest of one person; two people need --annotator, or one ground truth."""
    later = [("a", "2026-03-05T00:00:00Z", CHOICES | {"quality": ["1"]}), ("a", WHEN, CHOICES)]
    both = [("a", WHEN, CHOICES), ("b", "2026-03-05T00:00:00Z", CHOICES | {"quality": ["5"]})]
    export = export_of(tasks, later, both, [])
    assert "annotated by a and b" in refused(*imported(tmp_path, export))
    assert run(*imported(tmp_path, export, "--annotator", "a")).exit_code == 0
    assert [row["quality"] for row in gold_of(tmp_path)] == [1, 4]
    (tmp_path / "gold.jsonl").unlink()
    export[1]["annotations"][1]["ground_truth"] = True
    assert run(*imported(tmp_path, export)).exit_code == 0
    assert [row["quality"] for row in gold_of(tmp_path)] == [1, 5]


@pytest.mark.parametrize(
    ("choices", "changes", "reason"),
    [
        (CHOICES | {"task_type": ["calculation"]}, {}, "Did you mean 'calculate'"),
        (CHOICES | {"task_type": [{"a": 1}]}, {}, "not a value of task_type"),
        (CHOICES | {"further_operations": ["recall", "deduction", "comparison"]}, {}, "needs one to 3"),
        ({name: value for name, value in CHOICES.items() if name != "quality"}, {}, "no quality"),
        (CHOICES | {"mood": ["glad"]}, {}, "'mood' is nothing"),
        (CHOICES, {"taxonomy_version": "0"}, "taxonomy version '0'"),
        (CHOICES, {"kind": "video"}, "kind is 'video'"),
        (CHOICES, {"record_id": None}, "no task with a record_id"),
        (CHOICES, {"record_id": "same"}, "two annotated tasks"),
    ],
)
def test_wrong_annotations_are_refused_in_one_line(tmp_path, tasks, choices, changes, reason):
    """With the record they are about; nothing is written."""
    export = export_of(tasks, *([("a", WHEN, choices)] for _ in tasks), **changes)
    assert reason in refused(*imported(tmp_path, export))
    assert not (tmp_path / "gold.jsonl").exists()


@pytest.mark.parametrize(
    "export",
    ["", "{", "{}", "[1]", '[{"data": []}]', '[{"data": {"record_id": "a", "kind": "item"}, "annotations": 3}]',
     '[{"data": {"record_id": "a", "kind": "item"}, "annotations": [{"completed_by": 1}]}]',
     '[{"data": {"record_id": "a", "kind": "item"}, "annotations": [{"created_at": "2026-01-01"}]}]',
     '[{"data": {"record_id": "a", "kind": "item"}, "annotations": []}]'],
)  # fmt: skip
def test_exports_of_other_forms_are_refused_in_one_line(tmp_path, export):
    """No traceback whatever the file holds."""
    (tmp_path / "export.json").write_text(export)
    refused("review", "--from-label-studio", tmp_path / "export.json", "-o", tmp_path / "gold.jsonl")


def test_one_project_has_one_side(tmp_path):
    """Items and documents have different values: two forms."""
    table, text = write_inputs(tmp_path, kind="item", task_type="calculate")
    where = refused("review", table, "--text", text, "--to-label-studio", tmp_path / "tasks.json")
    assert "both items and documents" in where
    assert run("review", table, "--text", text, "--to-label-studio", "t.json", "-o", "g.jsonl").exit_code == 2
    assert run("review", table, "--from-label-studio", "e.json", "-o", "g.jsonl").exit_code == 2
    assert run("review", "--from-label-studio", "e.json").exit_code == 2

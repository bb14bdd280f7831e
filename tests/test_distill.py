"""Distillation: a student learns what is there to learn, to the byte, and says how well."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotator.distill import ALL_ANSWERS, distill, measure_speed, texts_of, written_examples
from annotator.distillation.calibration import abstention_curve
from annotator.distillation.heads import Lesson, score_answers, source_folds
from annotator.errors import BadInput
from annotator.judges.student import Calibration, Student
from annotator.taxonomy import AXES, GRADES, load_taxonomy


def lesson(records: int = 24) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents of two plain kinds, recipes and proofs, from four sources."""
    rows = []
    for number in range(records):
        is_recipe = number % 2 == 0
        recipe = f"Mix {number + 2} eggs with flour.\n1. Stir.\n2. Bake in the oven until golden brown."
        proof = f"Theorem {number}. Every prime above 2 is odd. Proof. Suppose that p is even; then 2 divides p."
        rows.append(
            {
                "record_id": f"d{number:03d}",
                "kind": "document",
                "background_condition": "everyday.practical" if is_recipe else "math.number_theory",
                "task_type": "instruct" if is_recipe else "prove",
                "solving_operation": ["recall"] if is_recipe else ["divisibility_modular", "contradiction_extremal"],
                "output_constraint": "steps" if is_recipe else "proof",
                "exercise": "none" if is_recipe else "central",
                "quality": 3 if is_recipe else 4,
                "text": recipe if is_recipe else proof,
                "source": f"source-{number % 4}",
            }
        )
    table = pl.DataFrame(rows)
    return table.drop("text", "source"), table.select("record_id", "text", "source")


def test_a_student_labels_new_texts_of_the_kinds_that_it_was_taught(tmp_path):
    """Words and shape of the two kinds are told apart on every axis."""
    labels, texts = lesson()
    distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")

    new = [
        "Beat 3 eggs, add flour.\n1. Stir well.\n2. Bake until brown.",
        "Theorem. No prime p > 2 is even. Proof. Suppose",
    ]
    given = Student.load(tmp_path).predict(new, "document")

    assert given["task_type"].to_list() == ["instruct", "prove"]
    assert given["background_condition"].to_list() == ["everyday.practical", "math.number_theory"]
    assert given["solving_operation"].list.first().to_list() == ["recall", "divisibility_modular"]
    assert given["exercise"].to_list() == ["none", "central"]


def test_the_same_labels_give_the_same_student_in_any_row_order(tmp_path):
    """Rows are sorted by id before anything is added up, and no time stamp is written."""
    labels, texts = lesson()
    distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path / "a", data="made up")
    distill(labels.reverse(), texts.sample(fraction=1, shuffle=True, seed=7), taxonomy=load_taxonomy(),
            out=tmp_path / "b", data="made up")  # fmt: skip

    for name in ("card.json", "weights.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_card_tells_scores_on_seen_and_on_unseen_sources(tmp_path):
    """Both are cross-validated, and a trivial task is learnt."""
    labels, texts = lesson()
    card = distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")

    assert card["taxonomy_version"] == "1"
    assert card["sizes"]["document"]["records"] == 24
    for how in ("seen_sources", "unseen_sources"):
        assert set(card["scores"]["document"][how]) == {*AXES, *GRADES, ALL_ANSWERS}
        assert card["scores"]["document"][how]["task_type"]["kappa"] == 1.0


def test_a_student_of_documents_refuses_items(tmp_path):
    """What was never taught is not guessed."""
    labels, texts = lesson()
    distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")

    with pytest.raises(BadInput, match="labels no items"):
        Student.load(tmp_path).predict(["2 + 2?"], "item")


def test_failed_labels_are_not_learnt(tmp_path):
    """A row of the dead-letter kind has no answer to learn."""
    labels, texts = lesson()
    status = pl.when(pl.col("record_id") == "d000").then(pl.lit("failed")).otherwise(pl.lit("ok")).alias("status")
    card = distill(labels.with_columns(status), texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")

    assert card["sizes"]["document"]["records"] == 23


def test_too_few_labels_and_lost_texts_are_named(tmp_path):
    """Each is the user's to mend."""
    labels, texts = lesson()
    with pytest.raises(BadInput, match="only 5 labels"):
        distill(labels.head(5), texts, taxonomy=load_taxonomy(), out=tmp_path, data="")
    with pytest.raises(BadInput, match="'d023'"):
        distill(labels, texts.head(23), taxonomy=load_taxonomy(), out=tmp_path, data="")
    with pytest.raises(BadInput, match="no labels"):
        distill(labels.head(0), texts, taxonomy=load_taxonomy(), out=tmp_path, data="")
    wrong = labels.with_columns(task_type=pl.lit("bake"))
    with pytest.raises(BadInput, match="'bake' is not a value"):
        distill(wrong, texts, taxonomy=load_taxonomy(), out=tmp_path, data="")


def test_the_written_examples_are_legal_and_binding():
    """Every value fits its side, and exercise is none exactly where recall comes first."""
    taxonomy = load_taxonomy()
    for row in written_examples().iter_rows(named=True):
        for axis in AXES:
            values = row[axis] if axis == "solving_operation" else [row[axis]]
            assert set(values) <= set(taxonomy.values(axis, row["kind"])), row["record_id"]
        assert 1 <= len(row["solving_operation"]) <= 3
        if row["kind"] == "document":
            assert (row["exercise"] == "none") == (row["solving_operation"][0] == "recall"), row["record_id"]


def test_whole_sources_are_held_out_together():
    """No source is split between folds, and folds are of like size."""
    sources = np.array([f"s{number % 25:02d}" for number in range(1000)])
    folds = source_folds(sources)

    assert len(np.unique(folds)) == 10
    assert all(len(set(folds[sources == name])) == 1 for name in set(sources))


def test_kappa_f1_and_ece_match_a_worked_example():
    """Cohen 1960's form: 35 of 50 agree, chance .5, kappa .4; F1 by hand; one bin, |.9 - .7| = .2.

    By chance, the mean distance of 50 answers from .9 is about sqrt(2 / pi) * sqrt(.9 * .1 / 50) = .034.
    """
    given = np.array([1] * 20 + [1] * 5 + [0] * 10 + [0] * 15)
    wanted = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)

    scores = score_answers(given, wanted, np.full(50, 0.9))
    assert scores.pop("ece_floor") == pytest.approx(0.034, abs=0.004)
    assert scores == {"kappa": 0.4, "macro_f1": 0.697, "ece": 0.2}


def test_a_record_given_twice_counts_once(tmp_path):
    """A file named twice changes no byte; two labels, or two texts, for one record are named."""
    labels, texts = lesson()
    texts.rename({"record_id": "doc_id"}).write_ndjson(tmp_path / "texts.jsonl")
    once, twice = (texts_of(labels, [tmp_path / "texts.jsonl"] * times) for times in (1, 2))
    for name, found in (("once", once), ("twice", twice)):
        distill(labels, found, taxonomy=load_taxonomy(), out=tmp_path / name, data="made up")

    assert once.equals(twice)
    assert (tmp_path / "once" / "weights.npz").read_bytes() == (tmp_path / "twice" / "weights.npz").read_bytes()
    with pytest.raises(BadInput, match="two labels for document 'd000'"):
        distill(pl.concat([labels, labels]), texts, taxonomy=load_taxonomy(), out=tmp_path, data="")
    other = pl.concat([texts, texts.head(1).with_columns(text=pl.lit("another"))])
    with pytest.raises(BadInput, match="two texts for record 'd000'"):
        distill(labels, other, taxonomy=load_taxonomy(), out=tmp_path, data="")


def test_the_learning_curve_says_when_more_labels_buy_little(tmp_path):
    """A trivial task is learnt from the first quarter on, so the last one bought nothing."""
    labels, texts = lesson(48)
    curve = distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")["learning_curve"]["document"]

    assert curve["labels"] == [12, 24, 36, 48]
    assert set(curve["kappa"]) == {*AXES, *GRADES}
    assert curve["kappa"]["task_type"][-1] == 1.0
    assert curve["advice"].endswith("labelling more of the same buys little.")


def test_examples_speed_up_the_fit_and_leave_held_out_scores_honest(tmp_path):
    """A student of random labels scores about chance, although every fold begins where the examples left off."""
    labels, texts = lesson(40)
    flipped = [int(number * 7919 % 13 < 6) for number in range(40)]
    tasks = [["instruct", "prove"][(number + flip) % 2] for number, flip in enumerate(flipped)]
    examples = written_examples().filter(pl.col("kind") == "document").head(40)
    card = distill(labels.with_columns(task_type=pl.Series(tasks)), texts, taxonomy=load_taxonomy(), out=tmp_path,
                   data="made up", examples=examples)  # fmt: skip

    assert abs(card["scores"]["document"]["seen_sources"]["task_type"]["kappa"]) < 0.35


def test_progress_counts_every_fit_and_the_card_says_how_fast_the_student_is(tmp_path):
    """The last fit is the one that was promised; the speed changes neither the student nor its name."""
    labels, texts = lesson()
    told = []
    distill(
        labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up", progress=lambda *now: told.append(now)
    )
    before = Student.load(tmp_path).fingerprint

    card = measure_speed(tmp_path, labels, texts)

    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert card["speed"]["document"]["texts_per_cpu_second"] > 0
    assert card["speed"]["document"]["characters"] == round(texts["text"].str.len_chars().mean())
    assert Student.load(tmp_path).card["speed"] == card["speed"]
    assert Student.load(tmp_path).fingerprint == before


def test_what_abstaining_buys_matches_a_worked_example():
    """Four texts, .95, .85, .65 and .55 sure in the axis that they are least sure of; the last two are wrong there."""
    sure = np.array([0.95, 0.85, 0.65, 0.55])
    doubted = np.column_stack([np.log(sure), np.log(1 - sure)])  # softmax gives the confidences back
    certain = np.tile([0.0, -9.0], (4, 1))
    first, second = np.tile([1.0, 0.0], (4, 1)), np.tile([0.0, 1.0], (4, 1))
    targets = dict.fromkeys(AXES, (("a", "b"), first))
    targets["task_type"] = ("a", "b"), np.where([[True], [True], [False], [False]], first, second)
    lesson = Lesson("item", None, None, None, None, targets, labelled=4, weight=None, fitted=lambda: None)
    scores = dict.fromkeys(AXES, certain) | {"task_type": doubted}

    curve = abstention_curve(scores, lesson, dict.fromkeys(AXES, Calibration(1.0, 1.0, 0.0)))

    assert curve["below"] == [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert curve["labelled"] == [1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.5, 0.25]
    assert curve["agreement"]["task_type"] == [0.5, 0.5, 0.5, 0.5, 0.6667, 1.0, 1.0, 1.0]
    assert curve["agreement"]["background_condition"] == [1.0] * 8


def test_the_card_says_what_a_threshold_costs(tmp_path):
    """On seen and on unseen sources; nothing is left out at 0, and ever more after that."""
    labels, texts = lesson()

    card = distill(labels, texts, taxonomy=load_taxonomy(), out=tmp_path, data="made up")

    for curve in card["abstention"]["document"].values():
        assert curve["labelled"][0] == 1.0
        assert curve["labelled"] == sorted(curve["labelled"], reverse=True)
        assert all(
            (share is None) == (kept == 0) for share, kept in zip(curve["agreement"]["task_type"], curve["labelled"])
        )


def test_a_card_beside_the_weights_of_another_student_is_refused(tmp_path):
    """As after a stop between the two files, or a copy of one of them."""
    for name, records in (("one", 24), ("other", 40)):
        distill(*lesson(records), taxonomy=load_taxonomy(), out=tmp_path / name, data="made up")
    (tmp_path / "other" / "weights.npz").replace(tmp_path / "one" / "weights.npz")

    with pytest.raises(BadInput, match="not the weights that the card was written with"):
        Student.load(tmp_path / "one")

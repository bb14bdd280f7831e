"""Faults of the harness are told from missing skills, on made-up logs and on real ones."""

import random

import numpy as np
import polars as pl
import pytest

from annotator.diagnose import diagnose
from annotator.diagnosis.answers import gold_of
from annotator.diagnosis.layouts import templates_from
from annotator.diagnosis.rescore import cut_first_answer, evidence, rescored
from annotator.errors import BadInput


def exam(items=240, *, rate=0.8, seed=0):
    """Arithmetic items, and a run that answers `rate` of them rightly in the style of a few-shot chain of thought."""
    generator = random.Random(seed)
    targets = [str(generator.randint(100, 999)) for _ in range(items)]
    ids = [f"item-{number:03d}" for number in range(items)]
    said = [target if generator.random() < rate else str(int(target) + 1) for target in targets]
    texts = [f"We add the parts step by step and find {value} in all. The answer is {value}." for value in said]
    samples = pl.DataFrame(
        {
            "item_id": ids,
            "run": "reference",
            "sample_index": 0,
            "response": texts,
            "score": [float(value == target) for value, target in zip(said, targets)],
        }
    )
    return pl.DataFrame({"item_id": ids, "prompt": "How many?", "target": targets}), samples


def changed(samples, rewrite, *, score=None):
    """The same run with every text rewritten, and with one score for all of them where one is given."""
    texts = [rewrite(text) for text in samples["response"]]
    scores = pl.col("score") if score is None else pl.lit(score)
    return samples.with_columns(pl.Series("response", texts), scores.alias("score"), run=pl.lit("candidate"))


def verdict(items, candidate, reference, **options):
    found = diagnose(items, candidate, reference=reference, bootstraps=300, **options)
    return found["verdict"], found["cause"]


RUN_ON = "\n\nQ: How many apples?\nA: We count. The answer is 7."


def test_a_model_that_does_not_stop_is_a_termination_fault():
    """Text after the answer, a harness that takes the last answer: nothing is left of the drop after cutting."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text + RUN_ON, score=0.0)

    found = diagnose(items, candidate, reference=reference, bootstraps=300)

    assert (found["verdict"], found["cause"]) == ("not_data", "termination")
    assert found["recovered_share"]["low"] > 0.99
    assert found["residual_drop"] == 0.0
    assert "pad = eos" in found["advice"][0]
    assert found["examples"][0]["cause"] == "termination"


def test_literal_end_markers_are_told_from_missing_ones():
    """The model writes its end marker, the harness does not stop at it."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text + "<|im_end|>\n<|im_start|>user\nmore", score=0.0)

    assert verdict(items, candidate, reference) == ("not_data", "end_marker")


def test_outputs_cut_by_the_token_limit_are_a_cap_fault():
    """Half of the outputs end in the middle, with finish reason length."""
    items, reference = exam()
    reference = reference.with_columns(finish_reason=pl.lit("stop"))
    cut = pl.int_range(pl.len()) % 2 == 0
    candidate = reference.with_columns(
        response=pl.when(cut).then(pl.col("response").str.head(40)).otherwise("response"),
        finish_reason=pl.when(cut).then(pl.lit("length")).otherwise("finish_reason"),
        score=pl.when(cut).then(0.0).otherwise("score"),
    )

    assert verdict(items, candidate, reference) == ("not_data", "generation_cap")


def test_a_stop_string_that_fires_early_leaves_short_outputs():
    """No answer, half as long as the reference, and no token limit in sight."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text[:20], score=0.0)
    keep = pl.int_range(pl.len()) % 3 > 0
    candidate = candidate.with_columns(
        response=pl.when(keep).then(reference["response"]).otherwise("response"),
        score=pl.when(keep).then(reference["score"]).otherwise("score"),
    )

    assert verdict(items, candidate, reference) == ("not_data", "stop_string")


def test_a_trailing_space_that_defeats_an_exact_match_is_white_space():
    """39 points of BBH were once lost to one space."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text + " ", score=0.0)

    assert verdict(items, candidate, reference) == ("not_data", "whitespace")


def test_an_answer_in_another_form_is_an_extraction_fault():
    """The harness looks for a phrase that the model no longer uses."""
    items, reference = exam()
    candidate = changed(
        reference, lambda text: text.replace("The answer is ", "\\boxed{").replace(".", "}."), score=0.0
    )

    assert verdict(items, candidate, reference) == ("not_data", "extraction")


def test_a_harness_that_takes_another_match_than_before_is_told():
    """Both runs go on after their answer; only the candidate is scored by the last match."""
    items, reference = exam()
    reference = reference.with_columns(response=pl.col("response") + RUN_ON)
    candidate = reference.with_columns(score=pl.lit(0.0), run=pl.lit("candidate"))

    assert verdict(items, candidate, reference) == ("not_data", "answer_position")


def test_failed_requests_are_no_answers():
    """A third of the outputs are empty."""
    items, reference = exam()
    lost = pl.int_range(pl.len()) % 3 == 0
    candidate = reference.with_columns(
        response=pl.when(lost).then(pl.lit("")).otherwise("response"), score=pl.when(lost).then(0.0).otherwise("score")
    )

    assert verdict(items, candidate, reference) == ("not_data", "failed_requests")


def test_prompts_that_differ_everywhere_forbid_a_verdict():
    """Nothing can be said about data until both runs see the same prompts."""
    items, reference = exam()
    candidate = exam(rate=0.4)[1].with_columns(prompt_hash=pl.lit("new"))

    assert verdict(items, candidate, reference.with_columns(prompt_hash=pl.lit("old"))) == (
        "inconclusive",
        "prompt_changed",
    )


def test_a_drop_only_where_prompts_differ_is_not_data():
    """On the items with equal prompts nothing is lost."""
    items, reference = exam()
    other = pl.int_range(pl.len()) % 2 == 0
    reference = reference.with_columns(prompt_hash=pl.lit("old"))
    candidate = reference.with_columns(
        prompt_hash=pl.when(other).then(pl.lit("new")).otherwise("prompt_hash"),
        score=pl.when(other).then(0.0).otherwise("score"),
        response=pl.when(other).then(pl.lit("The answer is 1.")).otherwise("response"),
    )

    assert verdict(items, candidate, reference) == ("not_data", "prompt_changed")


def in_layouts(items, samples, *, by=None):
    """The run with its prompts in two layouts, dealt out by lot or by a rule; and which items have the second."""
    lot = random.Random(5)
    second = [lot.random() < 0.5 if by is None else by(target) for target in items["target"]]
    layouts = ["### Question\nHow many?\n\n### Answer\n" if other else "Q: How many?\nA:" for other in second]
    return samples.with_columns(pl.Series("prompt", layouts)), second


def test_a_drop_in_one_layout_of_the_prompt_is_not_data():
    """No column names the template: the prompts themselves show two; nine in ten answers to one are lost."""
    items, reference = exam()
    reference, second = in_layouts(items, reference)
    lost = pl.Series(second) & (pl.int_range(items.height, eager=True) % 10 > 0)
    candidate = reference.with_columns(
        response=pl.when(lost).then(pl.lit("The answer is 5.")).otherwise("response"),
        score=pl.when(lost).then(0.0).otherwise("score"),
    )

    found = diagnose(items, candidate, reference=reference, bootstraps=300)

    assert (found["verdict"], found["cause"]) == ("not_data", "prompt_format")
    evidence_of = {cause["id"]: cause["evidence"] for cause in found["causes"]}
    assert evidence_of["prompt_format"]["worst"] == "### Question ### Answer"


def test_another_few_shot_layout_is_seen_in_the_prompts():
    """Without a hash or a template column: the candidate lost its example, and the evidence says so."""
    items, reference = exam()
    candidate = exam(rate=0.4)[1].with_columns(prompt=pl.lit("Q: How many?\nA:"))
    reference = reference.with_columns(prompt=pl.lit("Q: One and one?\nA: 2\n\nQ: How many?\nA:"))

    found = diagnose(items, candidate, reference=reference, bootstraps=300)

    assert (found["verdict"], found["cause"]) == ("inconclusive", "prompt_changed")
    assert found["causes"][0]["evidence"]["layouts"] == {"here": "Q: A:", "reference": "Q: A: after 1"}


def test_a_layout_that_goes_with_the_question_is_no_template():
    """Items of one kind always have the second layout, so the drop there may be a weakness: no acquittal."""
    items, reference = exam()
    texts = [str(number) if number % 2 else "blue" for number in range(items.height)]
    items = items.with_columns(target=pl.Series(texts))
    reference = reference.with_columns(
        response=pl.Series([f"The answer is {text}." for text in texts]), score=pl.lit(1.0)
    )
    reference, second = in_layouts(items, reference, by=lambda target: target == "blue")
    lost = pl.Series(second)
    candidate = reference.with_columns(
        response=pl.when(lost).then(pl.lit("The answer is red.")).otherwise("response"),
        score=pl.when(lost).then(0.0).otherwise("score"),
    )

    assert verdict(items, candidate, reference) == ("data", None)


def test_tasks_with_a_layout_each_are_not_templates():
    """Prompts tell templates apart only inside a task; a rare layout is what one item looks like."""
    one, other = "Q: 1+1?\nA:", "### Question\n1+1?\n"
    tasks = ["a"] * 30 + ["b"] * 30

    assert templates_from([one] * 30 + [other] * 30, tasks) == [None] * 60
    assert templates_from([one] * 30 + [other] * 30, ["a"] * 60) == ["Q: A:"] * 30 + ["### Question"] * 30
    assert templates_from([one] * 59 + [other], ["a"] * 60) == [None] * 60


def test_another_temperature_forbids_a_verdict():
    """Settings that both logs hold are compared, nested or not."""
    items, reference = exam()
    candidate = exam(rate=0.4)[1].with_columns(pl.lit(1.0).alias("decoding.temperature"))

    found = verdict(items, candidate, reference.with_columns(pl.lit(0.0).alias("decoding.temperature")))
    assert found == ("inconclusive", "decoding_changed")


def test_wrong_answers_in_good_form_are_data():
    """Nothing in the logs explains the drop, so the skill is weaker."""
    items, reference = exam()

    assert verdict(items, exam(rate=0.4)[1], reference) == ("data", None)


def test_two_equal_runs_are_noise():
    """Without a drop there is nothing to explain."""
    items, reference = exam()

    assert verdict(items, reference.with_columns(run=pl.lit("again")), reference) == ("inconclusive", "noise")


def test_scores_without_texts_forbid_a_verdict():
    """A fault of the harness cannot be ruled out where its traces are not logged."""
    items, reference = exam()
    bare = reference.with_columns(response=pl.lit(None, dtype=pl.String))
    candidate = bare.with_columns(score=pl.when(pl.int_range(pl.len()) % 2 == 0).then(0.0).otherwise("score"))

    assert verdict(items, candidate, bare) == ("inconclusive", None)
    assert "--log_samples" in diagnose(items, candidate, reference=bare)["advice"][0]


def test_a_fault_and_a_weakness_may_coexist():
    """Cutting undoes most of the drop; what is left is reported for the slices."""
    items, reference = exam(items=600)
    weak = pl.int_range(pl.len()) % 10 < 2
    candidate = reference.with_columns(
        response=pl.when(weak).then(pl.lit("The answer is 1.")).otherwise("response") + pl.lit(RUN_ON),
        score=pl.lit(0.0),
    )

    found = diagnose(items, candidate, reference=reference, bootstraps=300)

    assert (found["verdict"], found["cause"]) == ("not_data", "termination")
    assert found["residual"]["low"] > 0.1
    assert any("slices" in sentence for sentence in found["advice"])


def test_the_shape_of_the_drop_names_the_axis_it_follows():
    """A drop tied to the output constraint loads there and nowhere else."""
    items, reference = exam(items=400, rate=1.0)
    form = ["number" if number % 2 else "boolean" for number in range(400)]
    generator = np.random.default_rng(0)
    labels = pl.DataFrame(
        {
            "record_id": items["item_id"],
            "status": "ok",
            "background_condition": generator.choice(["a", "b"], 400).tolist(),
            "task_type": "calculate",
            "solving_operation": [[value] for value in generator.choice(["x", "y", "z"], 400)],
            "output_constraint": form,
        }
    )
    wrong = pl.Series(form) == "number"
    candidate = reference.with_columns(
        response=pl.when(wrong).then(pl.lit("The answer is 1.")).otherwise("response"),
        score=pl.when(wrong).then(0.0).otherwise("score"),
    )

    found = diagnose(items, candidate, reference=reference, labels=labels, bootstraps=300)

    assert found["axis_shape"]["output_constraint"] == {"eta2": 1.0, "p": 0.001, "levels": 2}
    assert found["axis_shape"]["solving_operation"]["p"] > 0.05
    assert found["verdict"] == "inconclusive"


def test_without_a_reference_only_visible_faults_are_named():
    """Re-scoring adds points to a run that goes on; a clean run stays undecided, and never convicts the data."""
    items, reference = exam()
    runaway = changed(reference, lambda text: text + RUN_ON, score=0.0)

    assert diagnose(items, runaway)["cause"] == "termination"
    assert diagnose(items, reference)["verdict"] == "inconclusive"


def test_row_order_changes_nothing():
    """Shuffled outputs give the same diagnosis."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text + RUN_ON, score=0.0)
    shuffled = [frame.sample(fraction=1.0, shuffle=True, seed=3) for frame in (items, candidate, reference)]

    first = diagnose(items, candidate, reference=reference, bootstraps=100)
    assert diagnose(shuffled[0], shuffled[1], reference=shuffled[2], bootstraps=100) == first


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_outputs_without_a_score_are_counted_and_left_out(missing):
    """Every tenth output of the candidate has no score: the drop is that of the others, and the count is said."""
    items, reference = exam()
    candidate = exam(rate=0.4)[1]
    gap = pl.int_range(pl.len()) % 10 == 0
    holes = candidate.with_columns(score=pl.when(gap).then(pl.lit(missing, dtype=pl.Float64)).otherwise("score"))

    found = diagnose(items, holes, reference=reference, bootstraps=300)

    assert found["unscored"] == {"here": 24, "reference": 0}
    assert found["items_used"] == 216
    assert "24 here, 0 in the reference" in found["advice"][-1]
    there = reference.filter(~pl.Series(range(240)).is_in(range(0, 240, 10)))
    assert found["drop"] == diagnose(items, candidate, reference=there, bootstraps=300)["drop"]


def test_a_run_without_a_single_score_is_refused():
    """Nothing can be said about it, and zeros would be a lie."""
    items, reference = exam()

    with pytest.raises(BadInput, match="reference samples: no output has a score"):
        diagnose(items, reference, reference=reference.with_columns(score=pl.lit(None, dtype=pl.Float64)))


def test_one_of_several_runs_can_be_chosen():
    """The unscored outputs of the other runs are none of its business."""
    items, reference = exam()
    other = reference.with_columns(run=pl.lit("other"), score=pl.lit(None, dtype=pl.Float64))
    both = pl.concat([exam(rate=0.4)[1].with_columns(run=pl.lit("candidate")), other.head(5), reference])

    found = diagnose(items, both, reference=both, run="candidate", reference_run="reference", bootstraps=300)

    assert (found["verdict"], found["unscored"]) == ("data", {"here": 0, "reference": 0})
    with pytest.raises(BadInput, match="runs in one table"):
        diagnose(items, both, reference=reference)


def test_runs_without_a_common_item_are_refused():
    """The message says which table, and what to do."""
    items, reference = exam()
    half = reference["item_id"].to_list()[:100]

    with pytest.raises(BadInput, match="the two runs share no item"):
        diagnose(
            items,
            reference.filter(pl.col("item_id").is_in(half)),
            reference=reference.filter(~pl.col("item_id").is_in(half)),
        )


def test_cutting_keeps_the_first_answer_and_nothing_after_it():
    """A second cut changes nothing, and a text without runaway keeps its answer."""
    gold = gold_of("(B)")
    text = "Thus the answer is (B)." + RUN_ON

    once = cut_first_answer(text, gold)
    assert once == "Thus the answer is (B)"
    assert cut_first_answer(once, gold) == once


def test_a_loop_is_seen():
    """The same phrase again and again until the limit."""
    items, reference = exam(items=2)
    looping = reference.with_columns(response=pl.lit("We try again and again. " * 30))

    assert evidence(items, looping)["loops"].to_list() == [True, True]
    assert evidence(items, reference)["loops"].to_list() == [False, False]


def test_samples_can_be_re_scored_for_the_slices():
    """The residual is computed on the same samples with other scores."""
    items, reference = exam()
    candidate = changed(reference, lambda text: text + RUN_ON, score=0.0)

    again = rescored(items, candidate, rule="cut_first_answer")

    assert again["score"].to_list() == reference["score"].to_list()
    with pytest.raises(BadInput, match="Did you mean 'cut_first_answer'"):
        rescored(items, candidate, rule="cut_first_anwser")

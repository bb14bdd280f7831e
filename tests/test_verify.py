"""A fix is confirmed only when it helps where it should, more than controls, without harm; and small trials say so."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy import stats

from annotator.cli import application
from annotator.errors import BadInput
from annotator.tables import LABELS, SLICES, write_table
from annotator.verification import effects
from annotator.verification.passing import pass_table
from annotator.verify import verify

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
TARGET = "op=deduction"


def trial(items=600, *, samples=4, gain=0.0, elsewhere=0.0, seeds=1, seed=0, base=0.5, name="after"):
    """Items of which a third is the target slice; an arm that gains there, and elsewhere, by given rates."""
    generator = np.random.default_rng(seed)
    ids = [f"item-{number:04d}" for number in range(items)]
    target = np.arange(items) % 3 == 0
    easy = np.random.default_rng(99).normal(0, 0.15, items)
    rate = np.clip(base + easy + np.where(target, gain, elsewhere), 0.02, 0.98)
    frames = []
    for run in range(seeds):
        score = (generator.random((items, samples)) < rate[:, None]).astype(float)
        frames.append(
            pl.DataFrame(
                {
                    "item_id": np.repeat(ids, samples),
                    "run": f"{name}-{run}",
                    "sample_index": np.tile(np.arange(samples), items),
                    "score": score.ravel(),
                }
            )
        )
    return pl.concat(frames)


def benchmark(items=600):
    ids = [f"item-{number:04d}" for number in range(items)]
    labels = pl.DataFrame(
        {
            "record_id": ids,
            "status": "ok",
            "background_condition": [("math.algebra", "formal.logic")[number % 2] for number in range(items)],
            "task_type": "decide",
            "solving_operation": [["deduction"] if number % 3 == 0 else ["recall"] for number in range(items)],
            "output_constraint": "boolean",
        }
    )
    slices = pl.DataFrame(
        {
            "slice_id": [TARGET],
            "background_condition": [None],
            "task_type": [None],
            "solving_operation": [["deduction"]],
            "output_constraint": [None],
            "item_ids": [ids[: items // 2 : 3]],
        }
    )
    return pl.DataFrame({"item_id": ids}), labels, slices


def judged(after, *, before=None, items=600, **options):
    benchmark_items, labels, slices = benchmark(items)
    before = trial(items, seed=100, name="before") if before is None else before
    return verify(benchmark_items, labels, before, after, slices, permutations=199, **options)


def test_a_gain_on_the_targets_over_a_control_is_confirmed():
    """Fifteen points on the target, none elsewhere, none in the control arm; three seeds each."""
    control = trial(seeds=3, seed=2, name="random")
    found = judged(trial(gain=0.15, seeds=3, seed=1), controls={"random": control}, margin=0.05)

    assert found["verdict"] == "confirmed"
    assert found["target"]["effect"]["estimate"] == pytest.approx(0.15, abs=0.04)
    assert found["did"]["low"] > 0
    assert found["controls"][0]["over_control_target"]["low"] > 0
    assert found["regressions"]["lost"] == []
    assert found["regressions"]["non_inferior"] is True
    assert found["items_target"] == 200  # the description, not only the items it was found on


def test_a_gain_that_any_training_gives_is_not_due_to_targeting():
    """The control arm gains as much: the gain is real, the targeting is not what made it."""
    items = 3000
    found = judged(
        trial(items, gain=0.1, elsewhere=0.1, seeds=3, seed=1),
        before=trial(items, seed=100, name="before"),
        controls={"in_domain": trial(items, gain=0.1, elsewhere=0.1, seeds=3, seed=2, name="in_domain")},
        items=items,
        min_effect=0.05,
    )

    assert found["verdict"] == "not_confirmed"
    assert "in_domain did as well" in found["summary"]


def test_no_gain_is_not_confirmed_when_there_is_power():
    """Three thousand items rule out a gain of five points."""
    items = 3000
    found = judged(
        trial(items, seeds=3, seed=1), before=trial(items, seed=100, name="before"), items=items, min_effect=0.05
    )

    assert found["verdict"] == "not_confirmed"


def test_a_loss_elsewhere_is_harmful():
    """The target gains, everything else loses ten points."""
    found = judged(trial(gain=0.15, elsewhere=-0.1, seed=1))

    assert found["verdict"] == "harmful"
    assert "outside the target slices" in found["summary"] or "as a whole" in found["summary"]


def test_a_slice_that_lost_is_named():
    """The rest is level on average, but one slice of it lost; max-T over all slices finds it."""
    after = trial(gain=0.2, seed=1)
    lost = [f"item-{number:04d}" for number in range(600) if number % 3 and number % 2]
    harmed = pl.col("item_id").is_in(lost) & (pl.col("sample_index") < 2)
    after = after.with_columns(score=pl.when(harmed).then(0.0).otherwise("score"))

    found = judged(after, margin=0.5)

    assert found["regressions"]["lost"][0]["slice_id"] == "bg=formal.logic"
    assert found["verdict"] != "confirmed"


def test_too_few_items_are_said_to_be_too_few():
    """Thirty items with one sample decide nothing, and the table says how many would."""
    found = judged(
        trial(30, samples=1, gain=0.1, seed=3), before=trial(30, samples=1, seed=100, name="before"), items=30
    )

    assert found["verdict"] == "inconclusive"
    assert found["needed"]["gain"]["items_needed"] > found["needed"]["gain"]["items_now"]
    assert any("target items" in sentence for sentence in found["advice"])


def test_an_effect_that_rounds_to_nothing_has_no_minus(tmp_path):
    """One output in 2,400 lost, 0.04 points: the command prints +0.0, as it would for a gain of that size."""
    items, labels, slices = benchmark()
    before = trial(name="before")
    lost = pl.int_range(pl.len()) == before["score"].arg_max()
    after = before.with_columns(run=pl.lit("after"), score=pl.when(lost).then(0.0).otherwise("score"))
    items.with_columns(prompt="item_id").write_parquet(tmp_path / "items.parquet")
    before.write_parquet(tmp_path / "before.parquet")
    after.write_parquet(tmp_path / "after.parquet")
    for name, table, columns in (("labels", labels, LABELS), ("slices", slices, SLICES)):
        missing = [pl.lit(None, dtype).alias(column) for column, dtype in columns.items() if column not in table]
        write_table(table.with_columns(missing).cast(columns), tmp_path / f"{name}.parquet")

    options = [f"--{name}={tmp_path / name}.parquet" for name in ("items", "labels", "slices", "before", "after")]
    done = CliRunner().invoke(application, ["verify", *options, "-o", str(tmp_path / "verification.json")])

    assert done.exit_code == 0, done.output
    assert "+0.0 [" in done.output
    assert "-0.0 " not in done.output


def test_runs_that_differ_widen_the_interval():
    """Three seeds of which one failed say less about the recipe than one seed says about itself."""
    good, bad = trial(gain=0.2, seed=1, name="a"), trial(gain=-0.2, seed=2, name="b")
    alike = judged(pl.concat([good, trial(gain=0.2, seed=5, name="c")]))["target"]["effect"]
    mixed = judged(pl.concat([good, bad]))["target"]["effect"]

    assert mixed["high"] - mixed["low"] > 5 * (alike["high"] - alike["low"])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_outputs_without_a_score_are_counted_and_left_out(missing):
    """Every 40th output after the change has no score: said, counted by arm, and never taken for a wrong answer."""
    after = trial(gain=0.15, seeds=3, seed=1)
    lost = pl.int_range(pl.len()) % 40 == 0
    holes = after.with_columns(score=pl.when(lost).then(pl.lit(missing, dtype=pl.Float64)).otherwise("score"))

    found = judged(holes, controls={"random": trial(seed=2, name="random")})

    assert found["unscored"] == {"before": 0, "after": 180, "random": 0}
    assert "Outputs without a score are left out (180 of after)" in found["advice"][0]
    assert found["overall"]["after"]["score"] == pytest.approx(
        judged(after)["overall"]["after"]["score"], abs=0.01
    )  # as zeros they would cost more than a point


def test_items_that_one_run_did_not_score_are_left_out_and_counted():
    """An item that has no score in one seed says nothing about that seed."""
    after = trial(seeds=2, seed=1)
    holes = after.with_columns(
        score=pl.when((pl.col("item_id") == "item-0007") & (pl.col("run") == "after-1")).then(None).otherwise("score")
    )

    found = judged(holes)

    assert (found["items_used"], found["items_left_out"], found["unscored"]["after"]) == (599, 1, 4)


def test_an_arm_without_a_single_score_is_refused():
    """It would otherwise look like an arm that was not given."""
    with pytest.raises(BadInput, match="after: no output has a score"):
        judged(trial().with_columns(score=pl.lit(None, dtype=pl.Float64)))


def test_more_samples_help_only_against_the_noise_of_decoding():
    """A gain of three points at two samples an item: either a few times the items, or a few times the samples."""
    found = judged(trial(samples=2, gain=0.03, seed=3), before=trial(samples=2, seed=100, name="before"))
    need = found["needed"]["gain"]

    assert need["samples_now"] == 2.0
    assert need["items_needed"] > need["items_now"]
    assert need["samples_needed"] > 2
    assert f"or about {need['samples_needed']:,} samples an item instead of 2" in " ".join(found["advice"])

    single = judged(trial(samples=1, gain=0.03, seed=1), before=trial(samples=1, seed=100, name="before"))
    assert single["needed"]["gain"]["samples_needed"] is None  # one sample cannot tell luck from skill


def test_every_arm_stands_beside_the_targeted_one_on_every_slice():
    """Which arm helped where: each control's own effect, and the contrast with it, for each target slice."""
    found = judged(trial(gain=0.15, seeds=3, seed=1), controls={"random": trial(seeds=3, seed=2, name="random")})

    row = found["slices"][0]
    assert row["slice_id"] == TARGET
    difference = row["effect"]["estimate"] - row["control_effects"]["random"]["estimate"]
    assert row["over_controls"]["random"]["estimate"] == pytest.approx(difference)
    assert found["untouched"]["control_effects"]["random"]["items"] == 400


def test_row_order_and_unknown_items_change_nothing():
    """Shuffled inputs give equal tables; outputs of items that are not in the benchmark play no part."""
    after, before = trial(gain=0.1, seeds=2, seed=1), trial(seed=100, name="before")
    extra = pl.concat([after, after.head(4).with_columns(item_id=pl.lit("stranger"))])

    first = judged(after, before=before)
    second = judged(extra.sample(fraction=1.0, shuffle=True, seed=1), before=before.sample(fraction=1.0, shuffle=True))

    assert first == second


def test_ids_that_match_nothing_are_refused():
    """The message names the arm."""
    with pytest.raises(BadInput, match=r"after \(after-0\): no item_id matches an item"):
        judged(trial(seed=1).with_columns(item_id=pl.lit("x")))


def test_labels_of_other_items_are_refused():
    """Without labels there are no other slices to look at, and the answer would be about something else."""
    items, labels, slices = benchmark()
    foreign = labels.with_columns(record_id=pl.format("other-{}", "record_id"))
    with pytest.raises(BadInput, match="labels: no record_id matches an item"):
        verify(items, foreign, trial(seed=100, name="before"), trial(seed=1), slices, permutations=9)


@pytest.mark.parametrize("margin", [float("nan"), -0.1, 3.0])
def test_a_margin_that_is_no_rate_is_refused(margin):
    """NaN would call every loss none."""
    with pytest.raises(BadInput, match="is not a rate"):
        judged(trial(seed=1), margin=margin)


def test_a_disjoint_benchmark_is_reported_beside():
    """Transfer is its own line."""
    items = benchmark(100)[0]
    found = judged(
        trial(gain=0.15, seed=1),
        disjoint_items=items,
        disjoint_before=trial(100, seed=4, name="before"),
        disjoint_after=trial(100, gain=0.3, elsewhere=0.3, seed=5),
    )

    assert found["disjoint"]["effect"]["low"] > 0.1


def test_a_single_arm_effect_is_the_paired_t_test():
    """Without clusters and with one run the interval is scipy's."""
    generator = np.random.default_rng(0)
    before = effects.Arm("before", generator.random((1, 40)), ["b"], 4.0)
    after = effects.Arm("after", generator.random((1, 40)), ["a"], 4.0)
    theirs = stats.ttest_rel(after.mean, before.mean)

    ours = effects.effect(effects.weights_of(np.ones(40, dtype=bool)), after, before, np.arange(40))

    assert ours["p"] == pytest.approx(theirs.pvalue)
    assert (ours["low"], ours["high"]) == pytest.approx(tuple(theirs.confidence_interval()))


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Effects of three seeds with a spread of their own: about 95 of 100 intervals hold the mean effect."""
    covered = 0
    for world in range(300):
        generator = np.random.default_rng(world)
        truth = 0.1
        noise = generator.normal(0, 0.05, (3, 1)) + generator.normal(0, 0.3, (3, 60)) + generator.normal(0, 0.2, 60)
        after = effects.Arm("after", truth + noise, ["a", "b", "c"], 1.0)
        before = effects.Arm("before", np.zeros((1, 60)), ["z"], 1.0)
        seen = effects.effect(effects.weights_of(np.ones(60, dtype=bool)), after, before, np.arange(60))
        covered += seen["low"] <= truth <= seen["high"]

    assert 0.90 < covered / 300 <= 1.0


def test_pass_at_k_stands_beside_what_guessing_reaches():
    """Answers that wander over few integers have a high floor at large k."""
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "target": ["1", "2", "3"]})
    texts = [f"The answer is {number}." for number in (1, 2, 3, 4)] * 3
    samples = pl.DataFrame(
        {
            "item_id": ["a"] * 4 + ["b"] * 4 + ["c"] * 4,
            "run": "r",
            "response": texts,
            "score": [1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0],
        }
    )

    table = pass_table(items, samples, samples, ["a", "b", "c"])

    assert [row["k"] for row in table] == [1, 2, 4]
    assert table[0]["before"] == table[0]["before_floor"] == 0.25
    assert table[2]["after"] == table[2]["after_floor"] == 1.0


@pytest.mark.skipif(not SHARED.exists(), reason="the real runs lie beside the checkout, not in it")
def test_a_real_intervention_with_three_arms():
    """Fine-tuning on 128 examples: all three arms gain a little, and none surely more than another over all items."""
    from annotator.readers import read_items, read_samples

    items = read_items([SHARED / "benchmarks" / "math.jsonl.gz"])
    start = "math1k__Llama-3.1-8B-Instruct"
    before = read_samples([SHARED / "runs" / f"{start}.jsonl.gz"])
    arms = {
        arm: read_samples([SHARED / "runs" / f"{start}-{arm}-s{seed}.jsonl.gz" for seed in range(3)])
        for arm in ("EvalTree", "Generic-Capability", "Directly-Sampled")
    }
    answered = sorted(set(before["item_id"].to_list()))
    labels = pl.DataFrame(schema={"record_id": pl.String, "status": pl.String, "background_condition": pl.String,
                                  "task_type": pl.String, "solving_operation": pl.List(pl.String),
                                  "output_constraint": pl.String})  # fmt: skip
    slices = pl.DataFrame({"slice_id": ["everything"], "item_ids": [answered]})

    found = verify(items, labels, before, arms.pop("EvalTree"), slices, controls=arms)

    assert found["items_used"] == 724
    assert found["overall"]["before"]["score"] == pytest.approx(0.4945, abs=1e-4)
    assert found["overall"]["effect"]["estimate"] == pytest.approx(0.0345, abs=1e-4)
    assert found["overall"]["effect"]["low"] > 0
    assert found["verdict"] == "inconclusive"
    assert [arm["name"] for arm in found["controls"]] == ["Generic-Capability", "Directly-Sampled"]
    alone = {arm["name"]: arm["overall"]["estimate"] for arm in found["controls"]}
    assert alone == pytest.approx({"Generic-Capability": 0.018, "Directly-Sampled": 0.020}, abs=1e-3)
    for arm in found["controls"]:  # better than either control by a point and a half, and surely than neither
        over = arm["over_control_overall"]
        assert 0.01 < over["estimate"] < 0.02
        assert over["low"] < 0 < over["high"]
    assert found["overall"]["over_controls"]["Directly-Sampled"] == found["controls"][1]["over_control_overall"]
    assert found["needed"]["over Directly-Sampled"]["items_needed"] > 724

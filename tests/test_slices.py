"""Planted weaknesses are found under their own names, nothing else is, and the table never depends on row order."""

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from command_line import annotator, refused

from annotator.cli import application
from annotator.errors import BadInput
from annotator.slices import find_slices
from annotator.slicing.lattice import Conjunction, build_lattice
from annotator.tables import LABELS, SLICES, write_table

BACKGROUNDS = ("math.algebra", "math.number_theory", "everyday.social")
OPERATIONS = ("arithmetic", "deduction", "recall", "comparison", "counting_enumeration", "temporal_reasoning")


def benchmark(items=400, *, seed=0, weak=0.6, samples=4, runs=("candidate", "reference")):
    """Items with random labels; the candidate loses `weak` of its rate on deduction in number theory, alone."""
    generator = np.random.default_rng(seed)
    ids = [f"item-{number:04d}" for number in range(items)]
    labels = pl.DataFrame(
        {
            "record_id": ids,
            "status": "ok",
            "background_condition": generator.choice(BACKGROUNDS, items).tolist(),
            "task_type": generator.choice(["calculate", "decide"], items).tolist(),
            "solving_operation": [
                generator.choice(OPERATIONS, generator.integers(1, 4), replace=False).tolist() for _ in ids
            ],
            "output_constraint": generator.choice(["number", "boolean"], items).tolist(),
        }
    )
    rate = generator.uniform(0.5, 0.95, items)
    outputs = {}
    for run in runs:
        own = rate.copy()
        if run == "candidate":
            hit = [
                background == "math.number_theory" and "deduction" in operations
                for background, operations in zip(labels["background_condition"], labels["solving_operation"])
            ]
            own[np.array(hit)] *= 1 - weak
        score = (generator.random((items, samples)) < own[:, None]).astype(float)
        outputs[run] = pl.DataFrame(
            {
                "item_id": np.repeat(ids, samples),
                "run": run,
                "sample_index": np.tile(np.arange(samples), items),
                "score": score.ravel(),
            }
        )
    return pl.DataFrame({"item_id": ids, "level": generator.choice(["easy", "hard"], items)}), labels, outputs


def test_a_planted_weakness_is_found_and_named():
    """One slice, with the two predicates that were planted, all its items, and the drop that was planted."""
    items, labels, outputs = benchmark()

    found = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"])

    assert found.table["slice_id"].to_list() == ["op=deduction&bg=math.number_theory"]
    row = found.table.row(0, named=True)
    assert row["deficit"] == pytest.approx(0.43, abs=0.08)
    assert row["low"] < row["score"] < row["high"] < row["reference_score"]
    assert row["p_adjusted"] == pytest.approx(0.001 / 0.9)  # the first question has nine tenths of alpha
    assert row["stability"] > 0.95
    assert row["confirmed"] is True
    assert row["items"] == len(row["item_ids"])
    assert row["recoverable_points"] == pytest.approx(100 * row["items"] / 400 * row["deficit_shrunk"], rel=0.2)
    assert found.summary["question"] == "worse_than_reference"
    assert found.summary["alpha"] == 0.05
    assert found.table.schema == found.candidates.schema == pl.Schema(SLICES)


def test_nothing_is_found_where_nothing_is_wrong():
    """Two runs of one model: an empty table with the contract's columns, and a note that says why."""
    items, labels, outputs = benchmark(weak=0.0)

    found = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"])

    assert found.table.height == 0
    assert found.table.schema == pl.Schema(SLICES)
    assert found.summary["note"].startswith("No slice passed")


def test_a_slice_that_is_hard_for_both_runs_is_not_a_finding():
    """Both runs fail on recall; only the comparison with nothing to compare with reports it, and says so."""
    items, labels, outputs = benchmark(weak=0.0)
    hard = labels.filter(pl.col("solving_operation").list.contains("recall"))["record_id"].implode()
    outputs = {
        run: frame.with_columns(score=pl.when(pl.col("item_id").is_in(hard)).then(0.0).otherwise("score"))
        for run, frame in outputs.items()
    }

    paired = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"])
    alone = find_slices(items, labels, outputs["candidate"])

    assert paired.table.height == 0
    assert alone.table["slice_id"].to_list() == ["op=recall"]
    assert alone.summary["question"] == "lower_than_rest"


def test_other_runs_tell_weak_from_hard():
    """With three other models as a difficulty model, only what this one alone fails on is left."""
    names = ("candidate", "m1", "m2", "m3")
    items, labels, outputs = benchmark(600, runs=names)
    hard = labels.filter(pl.col("solving_operation").list.contains("recall"))["record_id"].implode()
    blunted = pl.when(pl.col("item_id").is_in(hard)).then(pl.col("score") * (pl.col("sample_index") % 2))
    outputs = {run: frame.with_columns(score=blunted.otherwise("score")) for run, frame in outputs.items()}

    found = find_slices(items, labels, outputs["candidate"], other_runs=pl.concat(outputs[name] for name in names[1:]))

    assert found.summary["question"] == "worse_than_expected"
    assert found.table["slice_id"].to_list() == ["op=deduction&bg=math.number_theory"]


def test_a_target_score_asks_an_absolute_question():
    """Below .4: only the planted slice is; at .05 none is."""
    items, labels, outputs = benchmark(weak=0.8)

    below = find_slices(items, labels, outputs["candidate"], threshold=0.4)
    none = find_slices(items, labels, outputs["candidate"], threshold=0.05)

    assert below.table["slice_id"].to_list() == ["op=deduction&bg=math.number_theory"]
    assert below.summary["question"] == "below_threshold"
    assert none.table.height == 0


def test_the_order_of_rows_never_changes_a_table():
    """Shuffled items, labels and outputs give equal tables, to the last bit."""
    items, labels, outputs = benchmark()
    shuffled = [frame.sample(fraction=1.0, shuffle=True, seed=7) for frame in (items, labels, *outputs.values())]

    first = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"], extra_columns=["level"])
    second = find_slices(*shuffled[:3], reference=shuffled[3], extra_columns=["level"])

    assert first.table.equals(second.table)
    assert first.candidates.equals(second.candidates)
    assert first.by_column.equals(second.by_column)
    assert first.summary == second.summary


def test_what_is_left_out_is_counted():
    """Items without label, without output, and outputs of unknown items all appear in the summary."""
    items, labels, outputs = benchmark(100)
    failed = pl.when(pl.col("record_id") == "item-0003").then(pl.lit("failed"))
    labels = labels.with_columns(status=failed.otherwise("status"))
    samples = outputs["candidate"].filter(pl.col("item_id") != "item-0004")
    samples = samples.with_columns(item_id=pl.col("item_id").replace("item-0005", "item-9999"))

    summary = find_slices(items, labels, samples).summary

    assert summary["items"] == 100
    assert summary["items_without_label"] == 1
    assert summary["items_without_samples"] == 2
    assert summary["samples_of_unknown_items"] == 4
    assert summary["items_used"] == 97


def test_outputs_of_another_benchmark_are_refused():
    """The message shows one id of each side."""
    items, labels, outputs = benchmark(50)
    alien = outputs["candidate"].with_columns(item_id=pl.lit("gsm8k/") + pl.col("item_id"))

    with pytest.raises(BadInput, match=r"Items look like 'item-0000', samples like 'gsm8k/item-0000'"):
        find_slices(items, labels, alien)


def test_k_above_the_samples_is_refused():
    """pass@8 of four samples does not exist."""
    items, labels, outputs = benchmark(50)

    with pytest.raises(BadInput, match=r"k is not above the samples"):
        find_slices(items, labels, outputs["candidate"], metric="pass@8")


def test_items_of_one_template_count_as_one():
    """Every item copied nine times within its cluster adds no evidence: chance stays chance."""
    items, labels, outputs = benchmark(40, weak=0.0, seed=4)

    def copied(frame, column):
        return pl.concat([frame] + [frame.with_columns(pl.col(column) + f"-copy{copy}") for copy in range(9)])

    many = copied(items.with_columns(cluster_id=pl.col("item_id")), "item_id")
    found = find_slices(
        many,
        copied(labels, "record_id"),
        copied(outputs["candidate"], "item_id"),
        reference=copied(outputs["reference"], "item_id"),
    )

    assert found.summary["clusters"] == 40
    assert found.table.height == 0


def test_a_column_of_the_users_is_tabled_value_by_value():
    """A prompt template that halves the score shows up; a level that does nothing does not."""
    items, labels, outputs = benchmark(weak=0.0)
    template = pl.when(pl.col("sample_index") < 2).then(pl.lit("plain")).otherwise(pl.lit("chatty")).alias("template")
    candidate = outputs["candidate"].with_columns(template)
    candidate = candidate.with_columns(
        score=pl.when((pl.col("template") == "chatty") & (pl.col("sample_index") == 3)).then(0.0).otherwise("score")
    )

    table = find_slices(
        items, labels, candidate, reference=outputs["reference"], extra_columns=["level", "template"]
    ).by_column

    p = {(row["column"], row["value"]): row["p_adjusted"] for row in table.to_dicts()}
    assert list(p) == [("level", "easy"), ("level", "hard"), ("template", "chatty"), ("template", "plain")]
    assert p["template", "chatty"] == 0.001
    assert p["level", "easy"] > 0.05
    assert p["level", "hard"] > 0.05


def test_equal_item_sets_keep_the_shortest_name_with_an_operation():
    """Where every deduction item is about logic and asks for a boolean, one candidate stands for all those names."""
    labels = pl.DataFrame(
        {
            "background_condition": ["formal.logic"] * 5 + ["math.algebra"] * 5,
            "task_type": ["decide"] * 10,
            "solving_operation": [["deduction"]] * 5 + [["arithmetic"]] * 5,
            "output_constraint": ["boolean"] * 5 + ["number"] * 5,
        }
    )

    lattice = build_lattice(labels, min_items=2)

    assert [conjunction.slice_id for conjunction in lattice.conjunctions] == ["op=arithmetic", "op=deduction"]
    assert lattice.sizes.tolist() == [5, 5]


def test_an_item_lies_in_every_combination_of_its_labels():
    """Three operations, three single values: 7 x 8 - 1 conjunctions besides "any"."""
    rows = {
        "background_condition": ["formal.logic", "math.algebra"],
        "task_type": ["decide", "calculate"],
        "solving_operation": [["deduction", "recall", "comparison"], ["arithmetic"]],
        "output_constraint": ["boolean", None],
    }
    both = pl.concat([pl.DataFrame(rows)] * 2)  # every set twice, so that min_items=2 keeps them

    lattice = build_lattice(both, min_items=2)

    assert Conjunction("formal.logic", "decide", ("comparison", "recall"), "boolean").predicates == {
        ("background_condition", "formal.logic"),
        ("task_type", "decide"),
        ("solving_operation", "comparison"),
        ("solving_operation", "recall"),
        ("output_constraint", "boolean"),
    }
    assert {conjunction.slice_id for conjunction in lattice.conjunctions} == {"op=comparison", "op=arithmetic"}


def test_the_halves_of_a_benchmark_tell_how_far_they_agree():
    """A strong weakness makes both halves rank the candidates alike; two runs of one model do not."""
    items, labels, outputs = benchmark(800)
    weak = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"], bootstraps=1)
    items, labels, outputs = benchmark(800, weak=0.0)
    none = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"], bootstraps=1)

    assert weak.summary["split_half"]["reliability"] > 0.6
    assert weak.summary["split_half"]["same_sign"] == 1.0
    assert none.summary["split_half"]["reliability"] < 0.4
    assert none.summary["split_half"]["same_sign"] is None


def lattice_benchmark(weak, *, items=1500, seed=3):
    """Items of two operations, backgrounds and constraints in equal shares; `weak` says which lose half their rate."""
    generator = np.random.default_rng(seed)
    ids = [f"item-{number:04d}" for number in range(items)]
    labels = pl.DataFrame(
        {
            "record_id": ids,
            "status": "ok",
            "background_condition": generator.choice(
                ["math.algebra", "formal.logic", "everyday.social"], items
            ).tolist(),
            "task_type": "decide",
            "solving_operation": [[generator.choice(OPERATIONS)] for _ in ids],
            "output_constraint": generator.choice(["number", "boolean", "list"], items).tolist(),
        }
    )
    hit = np.array([weak(row) for row in labels.to_dicts()])
    runs = {}
    for run, rate in (("candidate", np.where(hit, 0.4, 0.8)), ("reference", np.full(items, 0.8))):
        score = (generator.random((items, 4)) < rate[:, None]).astype(float).ravel()
        columns = {"item_id": np.repeat(ids, 4), "run": run, "sample_index": np.tile(np.arange(4), items)}
        runs[run] = pl.DataFrame(columns | {"score": score})
    return pl.DataFrame({"item_id": ids}), labels, runs["candidate"], runs["reference"]


def test_a_loss_in_two_parts_of_an_operation_is_not_blamed_on_the_whole_of_it():
    """Deduction fails for numbers and booleans, not for lists: two slices, and neither is "deduction"."""
    items, labels, candidate, reference = lattice_benchmark(
        lambda row: row["solving_operation"] == ["deduction"] and row["output_constraint"] != "list"
    )

    found = find_slices(items, labels, candidate, reference=reference)

    assert sorted(found.table["slice_id"]) == ["op=deduction&out=boolean", "op=deduction&out=number"]


def test_a_loss_in_a_whole_operation_is_not_cut_into_parts():
    """Deduction fails whatever it is about: one slice."""
    items, labels, candidate, reference = lattice_benchmark(lambda row: row["solving_operation"] == ["deduction"])

    found = find_slices(items, labels, candidate, reference=reference)

    assert found.table["slice_id"].to_list() == ["op=deduction"]


def agreement_of(precision):
    """What `annotator agree` says of a judge whose every label is right with this probability."""
    values = {
        "background_condition": BACKGROUNDS,
        "task_type": ("calculate", "decide"),
        "solving_operation": OPERATIONS,
        "output_constraint": ("number", "boolean"),
    }
    rows = {
        axis: [{"value": value, "predicted": 50, "precision": precision} for value in listed]
        for axis, listed in values.items()
    }
    return {"axes": {axis: {"agreement": precision, "values": rows[axis], "confusions": []} for axis in values}}


def test_a_slice_is_fragile_if_the_judge_errs_often():
    """With perfect labels no verdict falls; with labels that are wrong as often as right nearly every one does."""
    items, labels, outputs = benchmark(weak=0.5)

    def fragility(agreement):
        found = find_slices(
            items, labels, outputs["candidate"], reference=outputs["reference"], agreement=agreement, bootstraps=1
        )
        return found.table["label_fragility"][0], found.summary

    perfect, told = fragility(agreement_of(1.0))
    assert perfect == 0.0
    assert told["label_error"]["task_type"] == 0.0
    assert told["label_error_from"] == "agreement"
    poor, told = fragility(agreement_of(0.5))
    assert poor > 0.4
    assert "would not pass in more than 40 %" in told["note"]
    usual, told = fragility(None)
    assert 0.0 <= usual < poor
    assert told["label_error_from"] == "assumed"


def test_pass_at_k_stands_beside_what_guessing_would_reach():
    """Outputs spread over ten answers, all of which are some item's gold: the floor is high, and it is said."""
    items, labels, outputs = benchmark(100, weak=0.9)
    items = items.with_columns(target=pl.Series([str(number % 10) for number in range(100)]))
    spread = pl.Series([f"The answer is {number % 10}." for number in range(400)])
    outputs = {run: frame.with_columns(response=spread) for run, frame in outputs.items()}

    at_four = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"], metric="pass@4")
    mean = find_slices(items, labels, outputs["candidate"], reference=outputs["reference"])

    assert at_four.summary["guess_floor"] == pytest.approx(0.4, abs=0.05)
    assert at_four.candidates["guess_floor"].null_count() == 0
    assert mean.summary["guess_floor"] is None


def whole(labels):
    """The labels with all columns that `annotator label` writes."""
    missing = [name for name in LABELS if name not in labels.columns]
    columns = [pl.lit(None, dtype=LABELS[name]).alias(name) for name in missing]
    return labels.with_columns(columns).with_columns(kind=pl.lit("item"), taxonomy_version=pl.lit("1"))


def written(folder, **frames):
    """The frames as files, by name."""
    for name, frame in frames.items():
        write_table(frame, folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in frames}


def test_the_command_answers_with_other_models_columns_and_known_label_errors(tmp_path):
    """One command: three unnamed runs as the difficulty model, two columns tabled, label errors from a file."""
    items, labels, outputs = benchmark(300, weak=0.8, runs=("candidate", "m1", "m2", "m3"))
    items = items.with_columns(input=pl.lit("text"), language=pl.Series(["en", "de"] * 150))
    paths = written(
        tmp_path, items=items, labels=whole(labels), **{run: frame.drop("run") for run, frame in outputs.items()}
    )
    (tmp_path / "agreement.json").write_text(json.dumps(agreement_of(0.95)))

    command = ["slices", "--items", paths["items"], "--labels", paths["labels"], "--samples", paths["candidate"]]
    others = [part for run in ("m1", "m2", "m3") for part in ("--other-samples", paths[run])]
    rest = ["--by", "level,language", "--agreement", str(tmp_path / "agreement.json"), "--json"]
    shown = CliRunner().invoke(application, [*command, *others, *rest, "-o", str(tmp_path / "slices.parquet")])

    assert shown.exit_code == 0, shown.output
    summary = json.loads(shown.stdout)
    assert summary["question"] == "worse_than_expected"
    assert summary["label_error"]["task_type"] == pytest.approx(0.05)
    by_column = pl.read_parquet(tmp_path / "slices_by_column.parquet")
    assert by_column["column"].unique().sort().to_list() == ["language", "level"]


def test_two_questions_at_once_are_refused(tmp_path):
    """A threshold beside a reference would be ignored; so it is refused."""
    command = ["slices", "--items", "i", "--labels", "l", "--samples", "s", "-o", str(tmp_path / "out.parquet")]

    shown = CliRunner().invoke(application, [*command, "--reference-samples", "r", "--threshold", "0.5"])

    assert isinstance(shown.exception, BadInput)
    assert "--reference-samples and --threshold ask different questions" in str(shown.exception)


def test_a_file_that_is_no_agreement_is_refused(tmp_path):
    """The message names the command that writes one."""
    items, labels, outputs = benchmark(50)
    paths = written(
        tmp_path, items=items.with_columns(input=pl.lit("text")), labels=whole(labels), run=outputs["candidate"]
    )
    (tmp_path / "agreement.json").write_text("[]")
    command = ["slices", "--items", paths["items"], "--labels", paths["labels"], "--samples", paths["run"]]
    more = ["--agreement", str(tmp_path / "agreement.json"), "-o", str(tmp_path / "out.parquet")]

    shown = CliRunner().invoke(application, [*command, *more])

    assert isinstance(shown.exception, BadInput)
    assert "annotator agree" in str(shown.exception)


def test_a_column_of_many_values_is_shown_in_part_and_said_to_separate_the_items(tmp_path):
    """Twenty lines and the file with all of them; a list without a name is refused."""
    items, labels, outputs = benchmark(200)
    said = outputs["candidate"].with_columns(response=pl.format("Item {} is\nunlike any other", "item_id"))
    paths = written(tmp_path, items=items.with_columns(input=pl.lit("text")), labels=whole(labels), run=said)
    command = ["slices", "--items", paths["items"], "--labels", paths["labels"], "--samples", paths["run"]]

    shown = annotator(*command, "--by", "response,level", "-o", "out.parquet", cwd=tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert len([line for line in shown.stdout.splitlines() if line.startswith("Item ")]) == 20
    assert "and 180 more in out_by_column.parquet" in shown.stdout
    assert shown.stdout.count("separates nearly every item") == 1
    assert pl.read_parquet(tmp_path / "out_by_column.parquet").height == 202
    refused(annotator(*command, "--by", ",", "-o", "none.parquet", cwd=tmp_path), "--by: ',' names nothing")

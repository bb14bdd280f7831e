"""The simulator plants what it says, from a seed alone; slices and diagnosis find it again."""

import polars as pl
import pytest

from annotator.diagnose import diagnose
from annotator.readers import read_items, read_samples
from annotator.simulate import plant, recovery_of
from annotator.simulate_faults import HARNESSES, exam, with_fault, write_log
from annotator.slices import find_slices


def test_a_seed_gives_the_same_world_every_time():
    """Nothing depends on anything but the seed."""
    first, second, other = (
        plant(3, items=1500, planted=4),
        plant(3, items=1500, planted=4),
        plant(4, items=1500, planted=4),
    )

    assert first.samples.equals(second.samples)
    assert first.truth.equals(second.truth)
    assert not first.samples.equals(other.samples)


def test_planted_slices_are_what_their_names_say():
    """Each holds exactly the items with its labels, 30 or more, and overlaps others by a fifth at most."""
    world = plant(1)
    for row in world.truth.to_dicts():
        parts = dict(part.split("=") for part in row["slice_id"].split("&"))
        fits = pl.col("solving_operation").list.contains(parts["op"])
        for short, axis in (("bg", "background_condition"), ("task", "task_type"), ("out", "output_constraint")):
            if short in parts:
                fits &= pl.col(axis) == parts[short]
        assert world.labels.filter(fits)["record_id"].to_list() == row["item_ids"]
        assert row["items"] >= 30
    sets = [set(row) for row in [*world.truth["item_ids"], *world.decoys["item_ids"]]]
    assert all(len(a & b) <= 0.2 * min(len(a), len(b)) for at, a in enumerate(sets) for b in sets[:at])


def test_large_planted_drops_are_found_and_decoys_are_not():
    """Six slices that got worse, four that are hard for both runs: six findings."""
    world = plant(0)

    found = find_slices(world.items, world.labels, world.samples, reference=world.reference, bootstraps=1)
    score = recovery_of(found.table["item_ids"].to_list(), world.truth["item_ids"].to_list())

    assert score["recall"] >= 5 / 6
    assert score["precision"] == 1.0
    assert score["item_f1"] > 0.95


def test_nothing_is_found_in_worlds_where_nothing_got_worse():
    """Decoys and families that change together are no findings; at most a few of 30 worlds err."""
    errors = 0
    for seed in range(30):
        world = plant(seed, items=600, planted=0, decoys=2, cluster_size=5, cluster_spread=0.5)
        found = find_slices(
            world.items, world.labels, world.samples, reference=world.reference, bootstraps=1, permutations=99
        )
        errors += found.table.height > 0

    assert errors <= 5  # P(more than 5 of 30 at .05) = .003


def test_recovery_counts_matches_by_items_in_common():
    """Half of the union in common is a match."""
    assert recovery_of([["a", "b"]], [["a", "b", "c"]]) == {"recall": 1.0, "precision": 1.0, "item_f1": 0.8}
    assert recovery_of([["x"]], [["a", "b", "c"]])["precision"] == 0.0


@pytest.mark.parametrize("harness", HARNESSES)
def test_logs_of_every_harness_are_read_back_as_they_were_made(harness, tmp_path):
    """Ids, texts, scores and targets survive the round trip."""
    candidate, _, weak = exam(0, items=30)
    path = write_log(candidate, tmp_path, harness=harness)

    items, samples = read_items([path]).sort("item_id"), read_samples([path]).sort("item_id")

    outputs = sorted(candidate.outputs, key=lambda output: f"exam/{output.item}")
    assert items["item_id"].to_list() == [f"exam/{output.item}" for output in outputs]
    assert items["target"].to_list() == [output.target for output in outputs]
    assert samples["response"].to_list() == [output.text for output in outputs]
    assert samples["score"].to_list() == [output.score for output in outputs]
    assert set(weak.to_list()) <= set(items["item_id"].to_list())


@pytest.mark.parametrize(
    ("cause", "harness"),
    [
        ("termination", "lm_eval"),
        ("generation_cap", "opencompass"),
        ("extraction", "inspect"),
        ("prompt_truncated", "lighteval"),
        ("bos", "lm_eval"),
        ("version_drift", "inspect"),
        ("prompt_format", "inspect"),
    ],
)
def test_a_fault_in_a_log_is_named(cause, harness, tmp_path):
    """From the file that a harness wrote to the cause, with no setting by hand."""
    candidate, reference, _ = exam(1)
    candidate, reference = with_fault(cause, candidate, reference, seed=1)
    here = write_log(candidate, tmp_path / "a", harness=harness)
    there = write_log(reference, tmp_path / "b", harness=harness)

    found = diagnose(read_items([there]), read_samples([here]), reference=read_samples([there]), bootstraps=200)

    assert found["cause"] == cause
    assert found["verdict"] == ("inconclusive" if cause == "bos" else "not_data")


@pytest.mark.parametrize("cause", ["termination", "prompt_changed", "prompt_format"])
def test_a_fault_that_both_runs_share_explains_nothing(cause, tmp_path):
    """The same outputs are hit in both, so the sign is everywhere and no drop follows from it."""
    candidate, reference = with_fault(cause, *exam(3)[:2], seed=3, in_both=True)
    here = write_log(candidate, tmp_path / "a", harness="lm_eval")
    there = write_log(reference, tmp_path / "b", harness="lm_eval")

    found = diagnose(read_items([there]), read_samples([here]), reference=read_samples([there]), bootstraps=200)

    assert (found["verdict"], found["cause"]) == ("inconclusive", "noise")


def test_a_tenth_of_a_fault_hits_a_tenth_of_the_outputs():
    """And those are among the outputs that the full fault hits."""
    candidate, reference, _ = exam(4)
    changed = []
    for strength in (0.1, 1.0):
        faulty, _ = with_fault("termination", candidate, reference, seed=4, strength=strength)
        changed.append({a.item for a, b in zip(faulty.outputs, candidate.outputs) if a.text != b.text})

    assert changed[0] < changed[1]
    assert len(changed[0]) < 0.2 * len(changed[1])


def test_a_weak_slice_alone_is_data(tmp_path):
    """No fault, a quarter of the items weaker."""
    candidate, reference, _ = exam(2, weak=True)
    here = write_log(candidate, tmp_path / "a", harness="inspect")
    there = write_log(reference, tmp_path / "b", harness="inspect")

    found = diagnose(read_items([there]), read_samples([here]), reference=read_samples([there]), bootstraps=200)

    assert (found["verdict"], found["cause"]) == ("data", None)

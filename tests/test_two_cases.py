"""The two cases of docs/two-cases.md, by one command line, and the real intervention of docs/intervention.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
DATA = REPOSITORY.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real runs lie beside the checkout, not in it")


def annotator(*arguments) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "annotator", *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return done.stdout


def diagnosed(benchmark: str, samples: Path, reference: str, folder: Path) -> dict:
    """The one command line of both cases."""
    labels, out = folder / "labels.parquet", folder / "diagnosis.json"
    items = DATA / "benchmarks" / f"{benchmark}.jsonl.gz"
    annotator("label", items, "-o", labels, "--kind", "item", "-q")
    annotator(
        *("diagnose", "--items", items, "--labels", labels, "--samples", samples),
        *("--reference-samples", DATA / "runs" / f"{reference}.jsonl.gz", "-o", out, "-q"),
    )
    return json.loads(out.read_text("utf-8"))


def test_case_1_a_model_that_does_not_stop_is_no_reason_to_change_the_data(tmp_path):
    """Real chains of thought, what the model writes on without a stop, scored by the last answer: 49 points lost."""
    script = REPOSITORY / "scripts" / "case_termination.py"
    subprocess.run([sys.executable, script, DATA, "-o", tmp_path], check=True, capture_output=True)

    found = diagnosed("bbh", tmp_path / "bbh-without-stop.jsonl.gz", "bbh__code-davinci-002-cot", tmp_path)

    assert (found["verdict"], found["cause"]) == ("not_data", "termination")
    assert found["drop"] > 0.4
    assert found["recovered_share"]["low"] >= 0.9
    assert abs(found["residual_drop"]) < 0.01
    assert "pad = eos" in found["advice"][0]


def test_case_2_a_weaker_model_is_not_excused_by_a_sign_that_costs_nothing(tmp_path):
    """The base model runs on after 95 % of its answers, but the harness takes the first: cutting recovers nothing."""
    weak = DATA / "runs" / "mmlu_pro__Meta-Llama-3-8B.jsonl.gz"

    found = diagnosed("mmlu_pro", weak, "mmlu_pro__Meta-Llama-3_1-8B-Instruct", tmp_path)

    termination = next(cause for cause in found["causes"] if cause["id"] == "termination")
    assert found["verdict"] == "data"
    assert found["residual"]["low"] > 0.08
    assert termination["triggered"]
    assert termination["recovered_share"]["high"] < 0.05


def test_the_slices_of_case_2_are_kinds_of_mathematics(tmp_path):
    """Between two releases of a model, level-5 mathematics is lost all over, and most where algebra is asked for."""
    labels, out = tmp_path / "labels.parquet", tmp_path / "slices.parquet"
    items = DATA / "benchmarks" / "math.jsonl.gz"
    annotator("label", items, "-o", labels, "--kind", "item", "-q")
    said = annotator(
        *("slices", "--items", items, "--labels", labels, "-o", out),
        *("--samples", DATA / "runs" / "math-l5__Qwen2-7B-Instruct.jsonl.gz"),
        *("--reference-samples", DATA / "runs" / "math-l5__Qwen2.5-7B-Instruct.jsonl.gz"),
    )

    assert "op=algebraic_manipulation" in said
    assert "op=divisibility_modular" in said

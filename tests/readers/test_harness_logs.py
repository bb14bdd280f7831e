"""Logs of evaluation harnesses: small ones that the harnesses wrote, and hand-made ones in their documented shapes."""

import io
import json
import shutil
import struct
import zipfile

import polars as pl
import pytest

from annotator.errors import BadInput
from annotator.readers import read_items, read_samples
from annotator.readers.logs import EVIDENCE
from annotator.simulate_faults import exam, write_log

SUMS = "samples_sums_2026-11-21T05-58-46.015609.jsonl"
PETS = "samples_pets_2026-11-21T05-58-46.015609.jsonl"
DETAILS = "details/org/toy/2026-01-02T03-04-05.678901"


def as_json(value) -> bytes:
    return json.dumps(value, indent=2).encode()


def test_every_log_has_the_same_evidence_columns(logs, write):
    """One set of names and types, so that a diagnosis need not know the harness."""
    paths = [logs / "lm_eval" / SUMS, logs / "inspect" / "sums.eval", logs / "lighteval"]
    paths += [write("rs0.jsonl", [{"generation": "x", "predicted_answer": "1", "symbolic_correct": True}])]

    for path in paths:
        samples = read_samples([path])
        assert {name: samples.schema[name] for name in EVIDENCE} == EVIDENCE


# lm-evaluation-harness -----------------------------------------------------------------------------------------------


def test_lm_eval_samples_are_read_with_their_results_file(logs):
    samples = read_samples([logs / "lm_eval" / SUMS])

    first = samples.row(0, named=True)
    expected = {
        "item_id": "sums/0",
        "run": "toy",
        "sample_index": 0,
        "response": " #### 3",
        "parsed_answer": "3",
        "score": 1.0,
        "metric": "exact_match",
        "filter": "strict",
        "filters.flexible.parsed_answer": "3",
        "filters.flexible.exact_match": 1.0,
        "prompt": "Q: What is 1 + 2?\nA:",
        "target": "3",
        "max_tokens": 32,
        "stop": ["\n"],
        "temperature": 0.7,
        "do_sample": True,
        "task": "sums",
        "task_version": "2.0",
        "num_fewshot": 0,
        "harness_version": "0.4.13",
    }
    assert {name: first[name] for name in expected} == expected
    assert len(first["doc_hash"]) == len(first["prompt_hash"]) == len(first["target_hash"]) == 64


def test_the_score_of_a_filter_that_takes_the_first_repeat_is_of_that_repeat_only(logs):
    """Six answers to three items, three of them scored: their mean is the harness's own result, 1/3."""
    samples = read_samples([logs / "lm_eval" / SUMS])

    assert samples.select("item_id", "sample_index").rows() == [(f"sums/{i}", j) for i in range(3) for j in range(2)]
    assert samples.filter(pl.col("score").is_null())["sample_index"].to_list() == [1, 1, 1]
    assert samples["score"].mean() == pytest.approx(1 / 3)


def test_another_filter_can_be_scored_and_an_unknown_one_lists_those_there_are(logs):
    path = logs / "lm_eval" / SUMS

    flexible = read_samples([path], filter="flexible")

    assert flexible["filter"].unique().to_list() == ["flexible"]
    assert flexible["parsed_answer"].drop_nulls().to_list() == ["3", "24", "3"]
    with pytest.raises(BadInput, match=r"no filter 'loose'. It has: strict, flexible."):
        read_samples([path], filter="loose")


def test_another_metric_can_be_the_score_and_an_unknown_one_lists_those_there_are(logs):
    path = logs / "lm_eval" / PETS

    by_default, normalised = read_samples([path]), read_samples([path], metric="acc_norm")

    assert by_default["metric"].unique().to_list() == ["acc"]
    assert normalised["score"].to_list() == by_default["metrics.acc_norm"].to_list()
    with pytest.raises(BadInput, match=r"no metric 'acc_nrm'. Did you mean 'acc_norm'\?"):
        read_samples([path], metric="acc_nrm")


def test_multiple_choice_gives_options_the_likeliest_answer_and_all_likelihoods(logs):
    path = logs / "lm_eval" / PETS

    item, sample = read_items([path]).row(0, named=True), read_samples([path]).row(0, named=True)

    assert (item["prompt"], item["choices"], item["target"]) == ("Which is feline?", ["a cat", "a dog", "a stone"], "A")
    assert (sample["response"], sample["parsed_answer"], sample["target"]) == (" a cat", "0", "0")
    assert sample["logprobs"] == "[-6.0,-6.0,-8.0]"


def test_one_benchmark_in_the_logs_of_two_runs_is_one_set_of_items(logs, tmp_path):
    for run in ("one", "two"):
        shutil.copytree(logs / "lm_eval", tmp_path / run)

    assert read_items([tmp_path]).height == 6


def test_two_versions_of_an_item_under_one_id_are_refused(logs, tmp_path):
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        shutil.copy(logs / "lm_eval" / SUMS, tmp_path / run)
    changed = tmp_path / "two" / SUMS
    changed.write_text(changed.read_text().replace("What is 1 + 2", "What is 2 + 1"))

    with pytest.raises(BadInput, match=r"two/.*:1: item 'sums/0' has another text than at .*one/.*:1"):
        read_items([tmp_path])


def test_a_log_without_results_beside_it_is_read_with_what_it_holds(logs, tmp_path):
    """Renamed and alone, it is still recognised; run and task are then not known."""
    shutil.copy(logs / "lm_eval" / SUMS, tmp_path / "outputs.txt")

    samples = read_samples([tmp_path / "outputs.txt"])

    assert samples.select("item_id", "run", "task", "score_level").row(0) == ("0", "unnamed", None, "item")


def test_a_users_own_column_of_a_log_can_be_taken(logs):
    items = read_items([logs / "lm_eval" / SUMS], columns={"prompt": "doc.question", "cluster_id": "doc.answer"})

    assert items.select("prompt", "cluster_id").row(0) == ("What is 1 + 2?", "3")


# Inspect -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sums.eval", "sums.json"])
def test_inspect_logs_are_read_from_zip_and_json(logs, name):
    """The zip has zstd members, which Python's own zipfile cannot read before 3.14."""
    samples = read_samples([logs / "inspect" / name]).sort("item_id", "sample_index")

    columns = ["item_id", "sample_index", "score", "finish_reason", "output_tokens", "max_tokens"]
    assert samples.select(columns).rows() == [
        ("sums/a", 0, 1.0, "stop", 1, 16),
        ("sums/a", 1, 0.0, "stop", 1, 16),
        ("sums/b", 0, 0.0, "max_tokens", 3, 16),
        ("sums/b", 1, 0.0, "stop", 1, 16),
    ]
    assert samples.select("run", "stop", "temperature", "metric", "parsed_answer").row(2) == (
        "mockllm/model",
        ["\n\n"],
        0.5,
        "match",
        "It is 9",
    )
    assert read_items([logs / "inspect" / name]).select("prompt", "target", "metadata.level").row(0) == (
        "What is 2 + 2?",
        "4",
        1,
    )


def inspect_sample(**changes) -> dict:
    message = {"role": "assistant", "content": "4"}
    output = {"choices": [{"message": message, "stop_reason": "stop"}], "usage": {"output_tokens": 1}}
    question = {"role": "user", "content": "2 + 2?"}
    return {"id": 1, "epoch": 1, "input": "2 + 2?", "target": "4", "messages": [question, message], "output": output,
            "scores": {"match": {"value": "C", "answer": "4"}}} | changes  # fmt: skip


def inspect_log(*samples: dict) -> bytes:
    run = {"task": "t", "model": "m", "packages": {"inspect_ai": "0.3"}}
    return as_json({"version": 2, "status": "success", "eval": run, "plan": {"config": {}}, "samples": list(samples)})


@pytest.mark.parametrize(
    ("value", "score"),
    [("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (True, 1.0), (0.25, 0.25), (7, None), ([1, 0], None)],
)
def test_inspect_values_become_scores_where_they_can(write, value, score):
    path = write("log.json", inspect_log(inspect_sample(scores={"s": {"value": value}})))

    assert read_samples([path])["score"].to_list() == [score]


def test_inspect_attachments_reasoning_errors_and_limits_are_carried(write):
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "attachment://abc"}]
    output = {"choices": [{"message": {"role": "assistant", "content": parts}, "stop_reason": "model_length"}]}
    failed = {"id": 2, "output": {"choices": [], "completion": ""}, "scores": None}
    path = write(
        "log.json",
        inspect_log(
            inspect_sample(output=output, attachments={"abc": "a long text"}, limit={"type": "token"}),
            inspect_sample(**failed, error={"message": "timed out"}),
        ),
    )

    samples = read_samples([path])

    assert samples.select("response", "reasoning", "finish_reason", "limit").row(0) == (
        "a long text",
        "hm",
        "model_length",
        "token",
    )
    assert samples.select("response", "score", "error").row(1) == (None, None, "timed out")


def test_inspect_values_by_name_are_metrics_each(write):
    path = write("log.json", inspect_log(inspect_sample(scores={"s": {"value": {"form": 1, "content": 0}}})))

    assert read_samples([path], metric="s/content")["score"].to_list() == [0.0]


def zip_of(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def test_a_crashed_inspect_run_is_read_from_its_journal(write):
    """header.json is written last; _journal/start.json is there from the start."""
    header = {"version": 2, "eval": {"task": "t", "model": "m"}, "plan": {"config": {"max_tokens": 5}}}
    members = {"_journal/start.json": as_json(header), "samples/1_epoch_1.json": as_json(inspect_sample())}

    samples = read_samples([write("log.eval", zip_of(members))])

    assert samples.select("item_id", "max_tokens", "score").row(0) == ("t/1", 5, 1.0)


def test_a_zip_member_that_would_fill_the_memory_is_refused(write):
    """The directory says 3 GB: nothing is unpacked."""
    header = as_json({"eval": {"task": "t", "model": "m"}})
    packed = bytearray(zip_of({"header.json": header, "samples/1_epoch_1.json": bytes(1000)}))
    entry = packed.rindex(b"PK\x01\x02")
    packed[entry + 24 : entry + 28] = struct.pack("<I", 3 << 30)

    with pytest.raises(BadInput, match=r"member samples/1_epoch_1.json says it holds 3072 MB"):
        read_samples([write("log.eval", bytes(packed))])


def test_a_zstd_member_that_lies_about_its_size_is_refused(logs, write):
    packed = bytearray((logs / "inspect" / "sums.eval").read_bytes())
    for entry in range(len(packed) - 4):
        if packed[entry : entry + 4] == b"PK\x01\x02":
            packed[entry + 24 : entry + 28] = struct.pack("<I", 10)

    with pytest.raises(BadInput, match="is damaged"):
        read_samples([write("log.eval", bytes(packed))])


@pytest.mark.parametrize("share", [0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("name", ["inspect/sums.eval", "inspect/sums.json", f"lm_eval/{SUMS}"])
def test_a_log_cut_short_gives_one_clear_line(logs, write, name, share):
    content = (logs / name).read_bytes()

    with pytest.raises(BadInput) as caught:
        read_samples([write(name, content[: int(len(content) * share)])])
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("harness", ["lighteval", "opencompass", "helm", "nemo_skills"])
@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_the_other_formats_cut_short_give_one_clear_line_too(tmp_path, harness, share):
    """An empty file, half of one, and one that lacks its end."""
    run = exam(1, items=40)[0]
    whole = {
        "helm": lambda: _helm_state(tmp_path / "scenario_state.json"),
        "nemo_skills": lambda: _nemo_output(tmp_path / "output-rs0.jsonl"),
    }.get(harness, lambda: write_log(run, tmp_path, harness=harness))()
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(BadInput) as caught:
        read_samples([whole])
    assert "\n" not in str(caught.value)
    assert whole.name in str(caught.value)


def _helm_state(path):
    request = {"instance": {"id": "id1", "input": {"text": "1+1?"}, "references": []}, "train_trial_index": 0}
    state = request | {"request": {"prompt": "1+1?"}, "result": {"completions": [{"text": "2"}]}}
    path.write_text(json.dumps({"adapter_spec": {"method": "generation"}, "request_states": [state] * 3}), "utf-8")
    return path


def _nemo_output(path):
    row = {"problem": "1+1?", "generation": "It is 2.", "predicted_answer": "2", "symbolic_correct": True}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(3)), "utf-8")
    return path


def test_a_log_of_another_shape_gives_one_clear_line(write):
    path = write("log.json", b'{"version": 2, "status": "success", "eval": {"task": "t"}, "samples": [{"x": 1}]}')

    with pytest.raises(BadInput, match=r"log.json: does not have the shape of a inspect log"):
        read_samples([path])


# lighteval -----------------------------------------------------------------------------------------------------------


def test_lighteval_details_carry_tokens_and_what_the_metric_compared(logs):
    """Eight tokens of at most eight: that this answer was cut can be seen without a finish reason."""
    samples = read_samples([logs / "lighteval"]).filter(pl.col("task") == "sums|0")

    assert samples.select("item_id", "run", "score", "parsed_answer", "output_tokens", "max_tokens").rows() == [
        ("sums|0/0", "org/toy", 1.0, "3", 4, 8),
        ("sums|0/1", "org/toy", 0.0, "and", 8, 8),
    ]
    assert samples.select("output_token_ids", "stop", "truncated_input_tokens").row(0) == ([7, 8, 9, 2], ["\n"], 0)


def test_lighteval_likelihoods_give_the_best_choice(logs):
    path = logs / "lighteval" / DETAILS / "details_pets_2026-01-02T03-04-05.678901.parquet"

    assert read_samples([path]).select("response", "score", "logprobs").rows() == [
        (" cat", 1.0, "[-1.0,-2.0]"),
        (" cat", 0.0, "[-1.0,-2.0]"),
    ]
    assert read_items([path]).select("prompt", "target", "choices").row(1) == (
        "Which is canine?",
        " dog",
        [" cat", " dog"],
    )


# OpenCompass ---------------------------------------------------------------------------------------------------------


def prediction(text, gold="3", **more) -> dict:
    return {"origin_prompt": [{"role": "HUMAN", "prompt": "1 + 2?"}], "prediction": text, "gold": gold, **more}


def test_opencompass_predictions_are_scored_by_the_details_of_their_results(write, tmp_path):
    write("run/predictions/m/sums.json", as_json({"0": prediction("It is 3", res_length=4), "1": prediction("4")}))
    details = {"type": "GEN", "0": {"pred": "3", "answer": "3", "correct": True},
               "1": {"pred": "4", "answer": "3", "correct": False}}  # fmt: skip
    write("run/results/m/sums.json", as_json({"accuracy": 50.0, "details": details}))

    samples = read_samples([tmp_path / "run"])

    assert samples.select("item_id", "run", "response", "parsed_answer", "score", "output_tokens").rows() == [
        ("sums/0", "m", "It is 3", "3", 1.0, 4),
        ("sums/1", "m", "4", "4", 0.0, None),
    ]
    assert read_items([tmp_path / "run"]).select("prompt", "target").row(0) == ("1 + 2?", "3")


def test_opencompass_parts_are_one_data_set(write, tmp_path):
    write("predictions/m/sums_0.json", as_json({"0": prediction("3"), "1": prediction("4")}))
    write("predictions/m/sums_1.json", as_json({"0": prediction("5")}))

    assert read_samples([tmp_path])["item_id"].to_list() == ["sums/0", "sums/1", "sums/2"]


def test_opencompass_lists_of_predictions_are_samples(write, tmp_path):
    write("predictions/m/sums.json", as_json({"0": prediction(["3", "4"])}))
    details = [{"pred": ["3", "4"], "answer": ["3", "3"], "correct": [True, False], "example_abbr": "a_0"}]
    write("results/m/sums.json", as_json({"details": details}))

    samples = read_samples([tmp_path])

    assert samples.select("sample_index", "response", "parsed_answer", "score").rows() == [
        (0, "3", "3", 1.0),
        (1, "4", "4", 0.0),
    ]


def test_opencompass_results_are_read_by_themselves_when_their_details_are_all_there_is(write):
    detail = {"prompt": "1 + 2?", "origin_prediction": "It is 3", "predictions": "3", "references": "3",
              "correct": True}  # fmt: skip
    path = write("sums.json", as_json({"accuracy": 100.0, "details": {"type": "GEN", "0": detail}}))

    assert read_samples([path]).select("response", "parsed_answer", "target", "score").row(0) == (
        "It is 3",
        "3",
        "3",
        1.0,
    )


def test_opencompass_perplexities_are_carried(write):
    options = {f"label: {letter}": {"testing input": "q", "prompt": f"q {letter}", "PPL": ppl}
               for letter, ppl in (("A", 2.0), ("B", 3.0))}  # fmt: skip
    path = write("predictions/m/pets.json", as_json({"0": {"origin_prompt": "q", **options, "prediction": "A"}}))

    assert read_samples([path]).select("response", "perplexities").row(0) == ("A", '{"A":2.0,"B":3.0}')


# HELM ----------------------------------------------------------------------------------------------------------------


def helm_request(instance_id: str, text: str, **more) -> dict:
    references = [{"output": {"text": name}, "tags": ["correct"] * (name == "cat")} for name in ("cat", "dog")]
    instance = {"input": {"text": "Which is feline?"}, "references": references, "split": "test", "id": instance_id}
    asked = {"prompt": "Q: Which is feline?\nA:", "temperature": 0.0, "max_tokens": 5, "stop_sequences": ["\n"]}
    completion = {"text": text, "logprob": -1.0, "tokens": [{"text": text}], "finish_reason": {"reason": "length"}}
    return {"instance": instance, "train_trial_index": 0, "output_mapping": {"A": "cat", "B": "dog"}, "request": asked,
            "result": {"success": True, "completions": [completion]}, "num_train_instances": 2, **more}  # fmt: skip


def helm_state(*requests: dict) -> bytes:
    adapter = {"method": "multiple_choice_joint", "model": "org/toy", "model_deployment": "org/toy"}
    return as_json({"adapter_spec": adapter, "request_states": list(requests)})


def test_helm_states_are_scored_by_the_statistics_beside_them(write):
    path = write("runs/pets:model=org_toy/scenario_state.json", helm_state(helm_request("id1", " B")))
    stats = [{"name": {"name": name}, "mean": mean} for name, mean in [("num_references", 1), ("exact_match", 0.0)]]
    write("runs/pets:model=org_toy/per_instance_stats.json",
          as_json([{"instance_id": "id1", "train_trial_index": 0, "stats": stats}]))  # fmt: skip

    sample, item = read_samples([path]).row(0, named=True), read_items([path]).row(0, named=True)

    expected = {"item_id": "pets/id1", "run": "org/toy", "response": " B", "parsed_answer": "dog", "score": 0.0,
                "metric": "exact_match", "finish_reason": "length", "max_tokens": 5, "stop": ["\n"],
                "num_fewshot": 2, "prompt": "Q: Which is feline?\nA:"}  # fmt: skip
    assert {name: sample[name] for name in expected} == expected
    assert (item["prompt"], item["choices"], item["target"]) == ("Which is feline?", ["cat", "dog"], "A")


def test_a_helm_state_without_statistics_is_scored_by_helms_exact_match(write):
    path = write("pets__org_toy.scenario_state.json", helm_state(helm_request("id1", " A"), helm_request("id2", "B")))

    samples = read_samples([path])

    assert samples.select("item_id", "score", "metric").rows() == [
        ("pets/id1", 1.0, "exact_match"),
        ("pets/id2", 0.0, "exact_match"),
    ]


def test_a_helm_question_asked_option_by_option_gives_its_likeliest_option(write):
    def option(index: int, logprob: float) -> dict:
        completions = [{"text": "x", "logprob": logprob}]
        return helm_request("id1", "x", reference_index=index, request_mode="original", output_mapping=None,
                            result={"completions": completions})  # fmt: skip

    calibration = helm_request("id1", "x", reference_index=1, request_mode="calibration")
    path = write("scenario_state.json", helm_state(option(0, -3.0), option(1, -1.0), calibration))

    samples = read_samples([path])

    assert samples.select("response", "score", "logprobs").rows() == [("dog", 0.0, "[-3.0,-1.0]")]


# NeMo-Skills ---------------------------------------------------------------------------------------------------------


def test_nemo_skills_seeds_are_samples_of_the_same_items(write, tmp_path):
    for seed, right in enumerate([True, False]):
        row = {"problem": "1 + 2?", "expected_answer": "3", "generation": "It is 3", "predicted_answer": "3",
               "symbolic_correct": right, "num_generated_tokens": 4}  # fmt: skip
        write(f"sums/output-rs{seed}.jsonl", [row])

    samples, items = read_samples([tmp_path]), read_items([tmp_path])

    assert samples.select("item_id", "sample_index", "score", "output_tokens").rows() == [
        ("sums/0", 0, 1.0, 4),
        ("sums/0", 1, 0.0, 4),
    ]
    assert items.select("prompt", "target").rows() == [("1 + 2?", "3")]


@pytest.mark.parametrize(
    ("verdict", "score"),
    [
        ({"is_correct": True, "is_correct-plus": False}, 1.0),
        ({"proof_status": "timeout"}, 0.0),
        ({"judgement": "Reasoning: fine.\nJudgement: Yes"}, 1.0),
        ({"judgement-gen-base": "[[A>B]]"}, None),
    ],
)
def test_nemo_skills_verdicts_become_scores_where_they_can(write, verdict, score):
    path = write("output.jsonl", [{"num_generated_tokens": 5, **verdict}])

    assert read_samples([path])["score"].to_list() == [score]
    with pytest.raises(BadInput, match="does not hold the text of its items"):
        read_items([path])


def test_the_inspect_log_of_this_folder_has_zstd_members(logs):
    """Were it written anew with another method, the tests above would no longer test that."""
    with zipfile.ZipFile(logs / "inspect" / "sums.eval") as archive:
        assert {info.compress_type for info in archive.infolist()} == {93}

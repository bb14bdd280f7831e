"""Write the small true logs of this folder with the harnesses themselves.

    python make_logs.py lm_eval | inspect | lighteval      (pip install lm-eval | inspect-ai | lighteval)

Each harness runs a toy model, which answers from a list, on two toy tasks: sums (generated answers) and pets (options).
Run it in this folder; the logs go into a folder named after the harness.
"""

import json
import os
import shutil
import sys
from pathlib import Path

SUMS = [(1, 2), (3, 4), (20, 5)]
PETS = [("a cat", "feline"), ("a dog", "canine"), ("a stone", "mineral")]


def lm_eval_logs() -> None:
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Toy(LM):
        asked = 0

        def generate_until(self, requests, **_):
            self.asked += len(requests)
            return [[" #### 3", " It makes 7.", " #### 24", " #### 25"][at % 4] for at in range(len(requests))]

        def loglikelihood(self, requests, **_):
            return [(-float(len(request.args[1])), False) for request in requests]

        def loglikelihood_rolling(self, requests, **_):
            return [0.0 for _ in requests]

    tasks = Path("tasks")
    tasks.mkdir(exist_ok=True)
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]
    (tasks / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [name for name, _ in PETS]
    rows = [{"question": f"Which is {kind}?", "choices": names, "answer": at} for at, (_, kind) in enumerate(PETS)]
    (tasks / "pets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tasks / "sums.yaml").write_text(r"""
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: tasks/sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}\nA:"
doc_to_target: "{{answer}}"
repeats: 2
generation_kwargs: {until: ["\n"], do_sample: true, temperature: 0.7, max_gen_toks: 32}
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "#### (\\d+)"}, {function: take_first}]}
  - {name: flexible, filter: [{function: regex, regex_pattern: "(\\d+)", group_select: -1}, {function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 2.0}
""")
    (tasks / "pets.yaml").write_text("""
task: pets
dataset_path: json
dataset_kwargs: {data_files: {test: tasks/pets.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
""")
    tracker = EvaluationTracker(output_path="lm_eval/results.json")
    results = lm_eval.simple_evaluate(
        model=Toy(), tasks=["sums", "pets"], task_manager=TaskManager(include_path="tasks"), log_samples=True,
        evaluation_tracker=tracker, bootstrap_iters=0,
    )  # fmt: skip
    samples = results.pop("samples")
    results["pretty_env_info"] = ""
    results["config"]["model_args"] = "pretrained=toy"
    tracker.general_config_tracker.model_name = "toy"
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    shutil.rmtree(tasks)


def inspect_logs() -> None:
    os.environ["INSPECT_LOG_DIR"] = "inspect"
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, ModelOutput, ModelUsage, get_model
    from inspect_ai.model._providers.mockllm import MockLLM
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    async def nine(*_, **__):
        return 9

    MockLLM.count_tokens = MockLLM.count_text_tokens = nine  # its own way fetches a tokenizer

    def output(text: str, stop: str = "stop") -> ModelOutput:
        made = ModelOutput.from_content("mockllm/model", text, stop_reason=stop)
        tokens = len(text.split())
        made.usage = ModelUsage(input_tokens=9, output_tokens=tokens, total_tokens=9 + tokens)
        return made

    task = Task(
        name="sums",
        dataset=[
            Sample(id="a", input="What is 2 + 2?", target="4", metadata={"level": 1}),
            Sample(id="b", input="Name a prime between 8 and 12.", target="11", metadata={"level": 2}),
        ],
        solver=generate(),
        scorer=match(),
        epochs=2,
        config=GenerateConfig(max_tokens=16, temperature=0.5, stop_seqs=["\n\n"]),
    )
    for log_format in ("eval", "json"):
        outputs = [output("4"), output("It is 9", "max_tokens"), output("11"), output("5")]
        model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
        eval(task, model=model, display="none", log_format=log_format, max_connections=1)
    for log in Path("inspect").glob("*_sums_*"):
        log.rename(f"inspect/sums{log.suffix}")


def lighteval_logs() -> None:
    from dataclasses import asdict, dataclass

    from datasets import Dataset
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc, SamplingMethod

    @dataclass
    class Detail:  # as lighteval.logging.info_loggers.DetailsLogger.Detail, which needs torch
        doc: Doc
        model_response: ModelResponse
        metric: dict

    def sums(number: int, query: str, gold: str, texts: list[str], tokens: list[list[int]], score: float) -> Detail:
        specific = {"extracted_predictions": [text.split()[-1] for text in texts], "level": 1}
        doc = Doc(query=query, choices=[gold], gold_index=0, task_name="sums|0", id=str(number), generation_size=8,
                  stop_sequences=["\n"], num_samples=len(texts), specific=specific,
                  sampling_methods=[SamplingMethod.GENERATIVE])  # fmt: skip
        response = ModelResponse(input=query, input_tokens=[1, 5, 6], text=texts, output_tokens=tokens)
        return Detail(doc, response, {"exact_match": score})

    def pets(number: int, query: str, gold: int, logprobs: list[float]) -> Detail:
        doc = Doc(query=query, choices=[" cat", " dog"], gold_index=gold, task_name="pets|0", id=str(number),
                  sampling_methods=[SamplingMethod.LOGPROBS])  # fmt: skip
        response = ModelResponse(input=query, input_tokens=[1, 5], logprobs=logprobs, output_tokens=[[3], [4]],
                                 argmax_logits_eq_gold=[False, False])  # fmt: skip
        return Detail(doc, response, {"acc": int(logprobs[gold] == max(logprobs))})

    date = "2026-01-02T03-04-05.678901"
    folder = Path(f"lighteval/details/org/toy/{date}")
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "sums": [
            sums(0, "1 + 2 =", "3", ["It is 3"], [[7, 8, 9, 2]], 1.0),
            sums(1, "3 + 4 =", "7", ["It is 8 and"], [[7, 8, 9, 9, 9, 9, 9, 9]], 0.0),
        ],
        "pets": [pets(0, "Which is feline?", 0, [-1.0, -2.0]), pets(1, "Which is canine?", 1, [-1.0, -2.0])],
    }
    for task, details in made.items():
        rows = Dataset.from_list([asdict(detail) for detail in details])
        rows.to_parquet(folder / f"details_{task}_{date}.parquet")


if __name__ == "__main__":
    {"lm_eval": lm_eval_logs, "inspect": inspect_logs, "lighteval": lighteval_logs}[sys.argv[1]]()

"""Made-up evaluation logs with a known fault: the causes of `annotator.diagnose` in the formats of four harnesses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HARNESSES = ("lm_eval", "lighteval", "inspect", "opencompass")
TASK, DATE = "exam", "2026-01-02T03-04-05.678901"
_SHOTS = "Q: A box holds 3 rows of 4 eggs. How many eggs are in it?\nA: 3 rows of 4 are 12. The answer is 12.\n\n"
_WEAK_SHARE = 0.25  # of the items, in the weak slice


@dataclass(frozen=True, slots=True)
class Output:
    """One output as it is logged. right: whether the answer given is right, whatever the harness makes of it."""

    item: int
    prompt: str
    target: str
    text: str
    score: float
    right: bool
    finish_reason: str = "stop"
    tokens: int = 0
    prompt_tokens_cut: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """The outputs of a run on all items, and its settings."""

    name: str
    outputs: list[Output]
    settings: dict[str, Any] = field(
        default_factory=lambda: {"temperature": 0.0, "max_tokens": 512, "bos_token": "<s>"}
    )

    def edited(self, change: Callable[[Output], Output]) -> Run:
        return dataclasses.replace(self, outputs=[change(output) for output in self.outputs])


def exam(seed: int, *, items: int = 300, weak: bool = False) -> tuple[Run, Run, pl.Series]:
    """Two faultless runs of one exam, and the ids of the items in a slice.

    The candidate answers as well as the reference, apart from that slice if it is `weak`: there it loses two thirds.
    Both take a strict harness: the text must end in "The answer is X.".

    Returns:
        (candidate, reference, item ids of the slice).
    """
    generator = np.random.default_rng([20_260_102, seed])
    easy = generator.uniform(0.6, 0.98, items)
    slice_ = generator.random(items) < _WEAK_SHARE
    targets = [_target(generator, number) for number in range(items)]
    runs = []
    for name, own in (("candidate", np.where(slice_ & weak, easy / 3, easy)), ("reference", easy)):
        right = generator.random(items) < own
        outputs = [_output(generator, number, targets[number], bool(right[number])) for number in range(items)]
        runs.append(Run(name, outputs))
    return runs[0], runs[1], pl.Series("item_id", [f"{TASK}/{number}" for number in np.flatnonzero(slice_)])


def _target(generator: np.random.Generator, number: int) -> str:
    """A number, an option letter or a truth value, by turns."""
    return (
        str(generator.integers(10, 999)),
        f"({'ABCDE'[generator.integers(5)]})",
        "Yes" if generator.random() < 0.5 else "No",
    )[number % 3]


def _wrong(generator: np.random.Generator, target: str) -> str:
    if target.isdigit():
        return str(int(target) + int(generator.integers(1, 9)))
    if target.startswith("("):
        return f"({generator.choice([letter for letter in 'ABCDE' if letter != target[1]])})"
    return "No" if target == "Yes" else "Yes"


def _output(generator: np.random.Generator, number: int, target: str, right: bool) -> Output:
    steps = ["We read the question and note what is given.", "Then we work out each part with care.",
             "The first part follows from the second line.", "Putting the parts together gives the result.",
             "We check the result against what was asked."]  # fmt: skip
    body = " ".join(generator.choice(steps, size=int(generator.integers(3, 7))))
    answer = target if right else _wrong(generator, target)
    prompt = f"{_SHOTS}Q: Question {number} of the exam, about item {number * 7 % 101}?\nA:"
    text = f"{body} The answer is {answer}."
    return Output(number, prompt, target, text, float(right), right, tokens=len(text) // 4)


def strict(output: Output, text: str) -> Output:
    """The output with another text, scored by a harness that wants the text to end in the answer."""
    score = float(text.endswith(f"The answer is {output.target}."))
    return dataclasses.replace(output, text=text, score=score, tokens=len(text) // 4)


def _sometimes(
    share: float, generator: np.random.Generator, change: Callable[[Output], Output]
) -> Callable[[Output], Output]:
    return lambda output: change(output) if generator.random() < share else output


def _termination(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    def runs_on(output: Output) -> Output:
        if generator.random() < 0.2:
            return strict(output, output.text + " We check the result again." * 20)
        guess = _wrong(generator, output.target)
        return strict(output, f"{output.text}\n\nQ: Another question?\nA: We think again. The answer is {guess}.")

    return candidate.edited(_sometimes(0.8, generator, runs_on)), reference


def _end_marker(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    marker = generator.choice(["<|im_end|>", "</s>", "<|eot_id|>"])
    return candidate.edited(_sometimes(0.8, generator, lambda o: strict(o, f"{o.text}{marker}\nand more"))), reference


def _generation_cap(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    cap = 45  # tokens of four characters: most bodies are longer

    def cut(output: Output) -> Output:
        if output.tokens <= cap:
            return output
        shorter = strict(output, output.text[: 4 * cap])
        return dataclasses.replace(shorter, finish_reason="length", tokens=cap)

    capped = candidate.edited(cut)
    return dataclasses.replace(capped, settings=capped.settings | {"max_tokens": cap}), reference


def _stop_string(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    stopped = candidate.edited(_sometimes(0.6, generator, lambda o: strict(o, o.text[: len(o.text) // 5])))
    return dataclasses.replace(stopped, settings=stopped.settings | {"stop": ["Q", "\n"]}), reference


def _whitespace(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    return candidate.edited(_sometimes(0.7, generator, lambda o: strict(o, f"{o.text} "))), reference


def _extraction(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    def other_form(output: Output) -> Output:
        head, answer = output.text.removesuffix(".").split("The answer is ")
        return strict(output, f"{head}#### {answer}" if generator.random() < 0.5 else f"{head}\\boxed{{{answer}}}")

    return candidate.edited(_sometimes(0.8, generator, other_form)), reference


def _answer_position(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    """Both runs go on; the reference was scored by the first answer, the candidate by the last."""

    def goes_on(output: Output, *, last: bool) -> Output:
        guess = _wrong(generator, output.target)
        more = f"{output.text}\n\nQ: Another question?\nA: We think again. The answer is {guess}."
        return dataclasses.replace(output, text=more, score=0.0 if last else output.score)

    return candidate.edited(lambda o: goes_on(o, last=True)), reference.edited(lambda o: goes_on(o, last=False))


def _failed_requests(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    texts = ["", "Error code: 500 - internal server error"]
    return candidate.edited(_sometimes(0.4, generator, lambda o: strict(o, str(generator.choice(texts))))), reference


def _worse(generator: np.random.Generator, output: Output) -> Output:
    """Well-formed, but right half as often."""
    if not output.right or generator.random() < 0.4:
        return output
    return strict(output, output.text.replace(f"is {output.target}.", f"is {_wrong(generator, output.target)}."))


def _prompt_changed(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    def other_prompt(output: Output) -> Output:
        return dataclasses.replace(_worse(generator, output), prompt=output.prompt.removeprefix(_SHOTS))

    return candidate.edited(_sometimes(0.5, generator, other_prompt)), reference


def _version_drift(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    def other_item(output: Output) -> Output:
        return strict(dataclasses.replace(output, target=_wrong(generator, output.target)), output.text)

    return candidate.edited(_sometimes(0.4, generator, other_item)), reference


def _decoding_changed(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    hotter = candidate.edited(lambda o: _worse(generator, o))
    return dataclasses.replace(hotter, settings=hotter.settings | {"temperature": 1.0}), reference


def _bos(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    worse = candidate.edited(lambda o: _worse(generator, o))
    return dataclasses.replace(worse, settings=worse.settings | {"bos_token": "<unk>"}), reference


def _prompt_truncated(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    def cut(output: Output) -> Output:
        return dataclasses.replace(_worse(generator, _worse(generator, output)), prompt_tokens_cut=120)

    return candidate.edited(_sometimes(0.5, generator, cut)), reference


def _noise(candidate: Run, reference: Run, generator: np.random.Generator) -> tuple[Run, Run]:
    return candidate, reference


Fault = Callable[[Run, Run, np.random.Generator], tuple[Run, Run]]
FAULTS: dict[str, Fault] = {
    "termination": _termination,
    "end_marker": _end_marker,
    "generation_cap": _generation_cap,
    "stop_string": _stop_string,
    "whitespace": _whitespace,
    "extraction": _extraction,
    "answer_position": _answer_position,
    "failed_requests": _failed_requests,
    "prompt_changed": _prompt_changed,
    "version_drift": _version_drift,
    "decoding_changed": _decoding_changed,
    "bos": _bos,
    "prompt_truncated": _prompt_truncated,
    "noise": _noise,
}
# Causes whose evidence only some harnesses log; in the others they cannot be told from missing skill.
VISIBLE_IN = {
    "bos": ("lm_eval",),
    "prompt_truncated": ("lighteval",),
    "decoding_changed": ("lm_eval", "lighteval", "inspect"),
}


def with_fault(cause: str, candidate: Run, reference: Run, *, seed: int) -> tuple[Run, Run]:
    """The two runs with a fault of one cause in the candidate (for "answer_position", both run on)."""
    return FAULTS[cause](candidate, reference, np.random.default_rng([20_260_103, seed]))


def write_log(run: Run, folder: Path, *, harness: str) -> Path:
    """Write a run as a harness does, into a folder of its own; the path that the readers take."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"lm_eval": _lm_eval, "lighteval": _lighteval, "inspect": _inspect, "opencompass": _opencompass}[harness](
        run, folder
    )


def _question(output: Output) -> str:
    return output.prompt.rsplit("Q: ", 1)[-1].removesuffix("\nA:")


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lm_eval(run: Run, folder: Path) -> Path:
    settings = run.settings
    arguments = {
        "until": settings.get("stop", ["Q:"]),
        "max_gen_toks": settings["max_tokens"],
        "do_sample": settings["temperature"] > 0,
        "temperature": settings["temperature"],
    }
    path = folder / f"samples_{TASK}_{DATE}.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for output in run.outputs:
            row = {
                "doc_id": output.item,
                "doc": {"question": _question(output), "answer": output.target},
                "target": output.target,
                "arguments": {"gen_args_0": {"arg_0": output.prompt, "arg_1": arguments}},
                "resps": [[output.text]],
                "filtered_resps": [output.text.rsplit("The answer is ", 1)[-1].removesuffix(".")],
                "filter": "get-answer",
                "metrics": ["exact_match"],
                "doc_hash": _sha(_question(output) + output.target),
                "prompt_hash": _sha(output.prompt),
                "target_hash": _sha(output.target),
                "exact_match": output.score,
            }
            lines.write(json.dumps(row) + "\n")
    results = {
        "results": {TASK: {}},
        "configs": {TASK: {"output_type": "generate_until"}},
        "versions": {TASK: 1.0},
        "n-shot": {TASK: 1},
        "config": {"model": "hf", "model_args": f"pretrained={run.name}"},
        "model_name": run.name,
        "tokenizer_bos_token": [settings["bos_token"], "1"],
        "tokenizer_eos_token": ["</s>", "2"],
    }
    (folder / f"results_{DATE}.json").write_text(json.dumps(results), "utf-8")
    return path


def _lighteval(run: Run, folder: Path) -> Path:
    rows = [
        {
            "doc": {
                "query": output.prompt,
                "original_query": _question(output),
                "choices": [output.target],
                "gold_index": [0],
                "id": str(output.item),
                "task_name": TASK,
                "generation_size": run.settings["max_tokens"],
                "stop_sequences": run.settings.get("stop", ["Q:"]),
            },
            "metric": {"exact_match": output.score},
            "model_response": {
                "input": output.prompt,
                "text": [output.text],
                "output_tokens": [list(range(output.tokens))],
                "truncated_tokens_count": output.prompt_tokens_cut,
            },
        }
        for output in run.outputs
    ]
    path = folder / f"details_{TASK}_{DATE}.parquet"
    pl.DataFrame(rows).write_parquet(path)
    general = {
        "model_name": run.name,
        "model_config": {
            "model_name": run.name,
            "generation_parameters": {
                "temperature": run.settings["temperature"],
                "max_new_tokens": run.settings["max_tokens"],
            },
        },
    }
    (folder / f"results_{DATE}.json").write_text(json.dumps({"config_general": general, "results": {}}), "utf-8")
    return path


def _inspect(run: Run, folder: Path) -> Path:
    settings = {"temperature": run.settings["temperature"], "max_tokens": run.settings["max_tokens"]}
    samples = [
        {
            "id": output.item,
            "epoch": 1,
            "input": _question(output),
            "target": output.target,
            "messages": [
                {"role": "user", "content": output.prompt},
                {"role": "assistant", "content": output.text},
            ],
            "output": {
                "model": run.name,
                "choices": [
                    {
                        "message": {"role": "assistant", "content": output.text},
                        "stop_reason": "max_tokens" if output.finish_reason == "length" else "stop",
                    }
                ],
                "usage": {"input_tokens": 40, "output_tokens": output.tokens, "total_tokens": 40 + output.tokens},
            },
            "scores": {"match": {"value": "C" if output.score else "I", "answer": output.text[-20:]}},
        }
        for output in run.outputs
    ]
    log = {
        "version": 2,
        "status": "success",
        "eval": {
            "task": TASK,
            "task_version": 0,
            "model": run.name,
            "model_generate_config": settings,
            "created": DATE,
        },
        "plan": {"name": "plan", "config": settings},
        "results": {"total_samples": len(samples), "scores": [{"name": "match"}]},
        "samples": samples,
    }
    path = folder / f"{DATE}_{TASK}.json"
    path.write_text(json.dumps(log), "utf-8")
    return path


def _opencompass(run: Run, folder: Path) -> Path:
    predictions = {
        str(place): {"origin_prompt": output.prompt, "prediction": output.text, "gold": output.target}
        for place, output in enumerate(run.outputs)
    }
    details = {
        str(place): {"pred": output.text[-20:], "answer": output.target, "correct": bool(output.score)}
        for place, output in enumerate(run.outputs)
    }
    for kind, content in (("predictions", predictions), ("results", {"accuracy": 0.0, "details": details})):
        (folder / kind / run.name).mkdir(parents=True, exist_ok=True)
        (folder / kind / run.name / f"{TASK}.json").write_text(json.dumps(content), "utf-8")
    return folder / "predictions" / run.name / f"{TASK}.json"

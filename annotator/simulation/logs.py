"""Write a made-up run in the native log format of each of four harnesses, with the evidence that each of them logs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl

from annotator.simulation.exam import DATE, TASK, Run

HARNESSES = ("lm_eval", "lighteval", "inspect", "opencompass")


def write_log(run: Run, folder: Path, *, harness: str) -> Path:
    """Write a run as a harness does, into a folder of its own; the path that the readers take."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"lm_eval": _lm_eval, "lighteval": _lighteval, "inspect": _inspect, "opencompass": _opencompass}[harness](
        run, folder
    )


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
                "doc": {"question": output.question, "answer": output.target},
                "target": output.target,
                "arguments": {"gen_args_0": {"arg_0": output.prompt, "arg_1": arguments}},
                "resps": [[output.text]],
                "filtered_resps": [output.text.rsplit("The answer is ", 1)[-1].removesuffix(".")],
                "filter": "get-answer",
                "metrics": ["exact_match"],
                "doc_hash": _sha(output.question + output.target),
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
                "original_query": output.question,
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
            "input": output.question,
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

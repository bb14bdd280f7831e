"""HELM: `scenario_state.json` (also gzipped), with `per_instance_stats.json` and `run_spec.json` in its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from annotator.readers.logs import LogRecord, read_json
from annotator.readers.shards import Shard
from annotator.readers.values import as_json, as_text

# The accuracy that HELM shows for a scenario is one of these, the first that it computes.
_ACCURACIES = (
    "exact_match",
    "quasi_exact_match",
    "chain_of_thought_correctness",
    "final_number_exact_match",
    "math_equiv_chain_of_thought",
    "math_equiv",
    "test_avg",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "f1_score",
)


def records(shard: Shard) -> Iterator[LogRecord]:
    """The completions of one run: one record for each, or for each question asked option by option (its likeliest).

    The metrics come from `per_instance_stats.json`; without it a multiple-choice answer is scored by HELM's exact match
    (the letter's option is a correct one), and a free answer by equality with a correct reference.
    """
    state = read_json(shard.path)
    adapter = state["adapter_spec"]
    run = adapter.get("model") or adapter.get("model_deployment")
    task = _task(shard.path, adapter)
    stats = _stats(shard.path)
    shared = {
        "harness": "helm",
        "run": run,
        "task": task,
        "num_fewshot": adapter.get("max_train_instances"),
        "adapter": adapter.get("method"),
    }
    by_option: dict[tuple[Any, ...], list[tuple[int, Mapping[str, Any]]]] = {}
    for row, request in enumerate(state["request_states"]):
        if request.get("reference_index") is None:
            yield from _completions(row, request, shared, stats)
        elif request.get("request_mode") != "calibration":
            by_option.setdefault(_key(request), []).append((row, request))
    for asked in by_option.values():
        yield _likeliest(asked, shared, stats)


def _completions(
    row: int, request: Mapping[str, Any], shared: Mapping[str, Any], stats: Mapping[Any, dict[str, Any]]
) -> Iterator[LogRecord]:
    item = _item(request, shared["task"])
    asked, result = request["request"], request.get("result") or {}
    completions = result.get("completions") or [{"text": None}]
    mapping = request.get("output_mapping")
    scores = stats.get(_key(request))
    for index, completion in enumerate(completions):
        text = completion.get("text")
        parsed = (mapping or {}).get((text or "").strip(), text) if mapping else text
        own = dict(scores) if scores is not None else _exact_match(request, parsed)
        reason = completion.get("finish_reason")
        sample = {
            **shared,
            **_settings(request, own),
            "item_id": item["item_id"],
            "sample_index": request.get("train_trial_index", 0) * len(completions) + index,
            "response": text,
            "parsed_answer": parsed,
            "prompt": asked.get("prompt") or (as_json(asked["messages"]) if asked.get("messages") else None),
            "finish_reason": (reason.get("reason") if isinstance(reason, dict) else reason) or None,
            "output_tokens": own.get("num_output_tokens") or len(completion.get("tokens") or []) or None,
            "logprob": completion.get("logprob"),
            "error": result.get("error") if result.get("success") is False else None,
            "score_level": "item" if len(completions) > 1 and scores is not None else "sample",
            "output_mapping": as_json(mapping) if mapping else None,
        }
        yield LogRecord(row, item, sample, _accuracy_first(own))


def _likeliest(
    asked: list[tuple[int, Mapping[str, Any]]], shared: Mapping[str, Any], stats: Mapping[Any, dict[str, Any]]
) -> LogRecord:
    """One record for a question of which each option was a request of its own."""
    row, request = asked[0]
    item = _item(request, shared["task"])
    logprobs = {}
    for _, one in asked:
        completions = (one.get("result") or {}).get("completions") or [{}]
        logprobs[one["reference_index"]] = completions[0].get("logprob")
    known = {index: value for index, value in logprobs.items() if value is not None}
    best = max(known, key=lambda index: known[index]) if known else None
    references = request["instance"].get("references") or []
    answer = references[best]["output"]["text"] if best is not None and best < len(references) else None
    scores = stats.get(_key(request)) or _exact_match(request, answer)
    sample = {
        **shared,
        **_settings(request, scores),
        "item_id": item["item_id"],
        "sample_index": request.get("train_trial_index", 0),
        "response": answer,
        "parsed_answer": answer,
        "prompt": request["request"].get("prompt"),
        "logprobs": as_json([logprobs[index] for index in sorted(logprobs)]),
    }
    return LogRecord(row, item, sample, _accuracy_first(scores))


def _settings(request: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    asked = request["request"]
    return {
        "max_tokens": asked.get("max_tokens"),
        "stop": asked.get("stop_sequences") or None,
        "temperature": asked.get("temperature"),
        "top_p": asked.get("top_p"),
        "input_tokens": scores.get("num_prompt_tokens"),
        "num_fewshot": request.get("num_train_instances"),
        "prompt_truncated": request.get("prompt_truncated"),
    }


def _item(request: Mapping[str, Any], task: str) -> dict[str, Any]:
    instance = request["instance"]
    references = instance.get("references") or []
    options = [as_text(reference["output"].get("text")) or "" for reference in references]
    correct = [text for text, reference in zip(options, references) if "correct" in (reference.get("tags") or [])]
    perturbation = (instance.get("perturbation") or {}).get("name")
    mapping = request.get("output_mapping")
    letters = [letter for letter, text in (mapping or {}).items() if text in correct]
    return {
        "item_id": "/".join(part for part in (task, instance.get("id"), perturbation) if part),
        "benchmark": task,
        "task": instance.get("sub_split") or task,
        "prompt": as_text(instance["input"].get("text")),
        "target": "; ".join(letters or correct) or None,
        "choices": list(mapping.values()) if mapping else options if len(options) > len(correct) else None,
        "split": instance.get("split"),
        "perturbation": perturbation,
    }


def _exact_match(request: Mapping[str, Any], answer: str | None) -> dict[str, Any]:
    references = request["instance"].get("references") or []
    correct = [one["output"].get("text", "").strip() for one in references if "correct" in (one.get("tags") or [])]
    return {"exact_match": (answer or "").strip() in correct} if correct else {}


def _accuracy_first(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with the accuracies in front; counts and times (num_references, batch_size) can never be the score."""
    known = {name: scores[name] for name in _ACCURACIES if name in scores}
    return {**known, **{f"stats.{name}": value for name, value in scores.items() if name not in known}}


def _key(request: Mapping[str, Any]) -> tuple[Any, ...]:
    instance = request.get("instance")
    if instance is None:  # a row of per_instance_stats.json
        perturbation = request.get("perturbation") or {}
        return request.get("instance_id"), request.get("train_trial_index"), perturbation.get("name")
    perturbation = instance.get("perturbation") or {}
    return instance.get("id"), request.get("train_trial_index"), perturbation.get("name")


def _stats(path: Path) -> dict[Any, dict[str, Any]]:
    """(instance, trial, perturbation) -> metric -> mean, from the file beside a scenario state."""
    beside = _beside(path, "per_instance_stats")
    if beside is None:
        return {}
    return {_key(one): {stat["name"]["name"]: stat.get("mean") for stat in one["stats"]} for one in read_json(beside)}


def _beside(path: Path, name: str) -> Path | None:
    """The file of another name that belongs to a scenario state: same folder, same prefix and suffix."""
    candidate = path.with_name(path.name.replace("scenario_state", name))
    return candidate if "scenario_state" in path.name and candidate.is_file() else None


def _task(path: Path, adapter: Mapping[str, Any]) -> str:
    """The run's name without the model, so that two models' runs of one scenario share their items."""
    spec_path = _beside(path, "run_spec")
    spec = read_json(spec_path) if spec_path else {}
    name = spec.get("name") if isinstance(spec, dict) else None
    if not name:
        name = path.parent.name if path.name.startswith("scenario_state.") else path.name.split(".scenario_state")[0]
    name = re.sub(r"(^|[,:])model(_deployment)?=[^,]*", "", name)
    for model in (adapter.get("model"), adapter.get("model_deployment")):
        if model:
            name = name.replace(model.replace("/", "_"), "")
    return name.strip("_,:-. ") or "helm"

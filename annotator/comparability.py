"""May two runs be compared at all? Prompts, versions, targets, decoding and scoring, item by item where logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

# Columns of samples (also nested, as "decoding.shots") and keys of a run's config that belong to one cause each.
_PROMPT = ("prompt_hash", "prompt")
_DOCUMENT = ("doc_hash", "target_hash")
_SETTINGS = {
    "decoding_changed": (
        "temperature", "top_p", "top_k", "do_sample", "num_beams", "repetition_penalty", "max_tokens",
        "max_gen_toks", "max_new_tokens", "stop", "until", "gen_kwargs", "generation_size",
    ),
    "prompt_changed": (
        "chat_template", "chat_template_sha", "apply_chat_template", "system_instruction", "system_instruction_sha",
        "system_prompt", "fewshot_as_multiturn", "prompting", "prompt_version", "prompt_template_sha",
    ),
    "version_drift": (
        "version", "task_version", "task_hash", "git_hash", "harness_version", "lm_eval_version", "shots", "n_shot",
        "num_fewshot", "n-shot", "dataset_revision", "correct_rule", "scorer", "metric_name", "filter",
    ),
    "bos": ("add_bos_token", "bos_token", "tokenizer_bos_token"),
}  # fmt: skip
_END_OF_TEXT = (("eos_token", "tokenizer_eos_token"), ("eot_token", "eot_token_id"))


def comparability(
    samples: pl.DataFrame,
    reference: pl.DataFrame,
    *,
    config: Mapping[str, Any] | None = None,
    reference_config: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], pl.Series]:
    """What differs between two runs besides the model, and the items that can be compared.

    Args:
        samples, reference: outputs of one run each; any column named like a setting is looked at.
        config, reference_config: settings of the whole run, keys as in the harness's results file.

    Returns:
        (findings, item ids). findings: items_common, items_only_here, items_only_reference, comparable_items,
        prompts_differ (share of common items, null where prompts are not logged), documents_differ (the same for
        document and target hashes), settings: [{cause, name, here, reference}] that differ, samples_per_item of both.
        The ids are those of common items with the same prompt and document, sorted.
    """
    here, there = (set(frame["item_id"].unique().to_list()) for frame in (samples, reference))
    common = pl.Series("item_id", sorted(here & there), dtype=pl.String)
    prompts = _differing(samples, reference, common, _PROMPT)
    documents = _differing(samples, reference, common, _DOCUMENT)
    unlike = (prompts or set()) | (documents or set())
    same = common.filter(~common.is_in(sorted(unlike))) if unlike else common
    settings = _settings(samples, reference) + _config(config or {}, reference_config or {})
    findings = {
        "items_common": len(common),
        "items_only_here": len(here - there),
        "items_only_reference": len(there - here),
        "comparable_items": len(same),
        "prompts_differ": None if prompts is None else round(len(prompts) / max(len(common), 1), 4),
        "documents_differ": None if documents is None else round(len(documents) / max(len(common), 1), 4),
        "settings": settings,
        "samples_per_item": [round(frame.height / frame["item_id"].n_unique(), 3) for frame in (samples, reference)],
        "end_of_text": _end_of_text(config or {}),
    }
    return findings, same


def _differing(
    samples: pl.DataFrame, reference: pl.DataFrame, common: pl.Series, columns: tuple[str, ...]
) -> set[str] | None:
    """Common items for which any of the columns that both runs log differs; None if neither logs one."""
    differing: set[str] = set()
    compared = False
    for name in columns:
        if name not in samples.columns or name not in reference.columns:
            continue
        one, two = (_per_item(frame, name) for frame in (samples, reference))
        both = one.join(two, on="item_id", suffix="_reference").drop_nulls()
        if both.is_empty():
            continue
        compared = True
        differing |= set(both.filter(pl.col(name) != pl.col(f"{name}_reference"))["item_id"].to_list())
        if columns is _PROMPT:
            break  # the hash, where there is one, stands for the text
    return differing & set(common.to_list()) if compared else None


def _per_item(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    value = pl.col(name).cast(pl.String, strict=False)
    return frame.select("item_id", value).drop_nulls().group_by("item_id").agg(pl.col(name).min()).sort("item_id")


def _settings(samples: pl.DataFrame, reference: pl.DataFrame) -> list[dict[str, Any]]:
    found = []
    for name in sorted(set(samples.columns) & set(reference.columns)):
        cause = _cause_of(name.rsplit(".", 1)[-1])
        if cause is None:
            continue
        here, there = (_values(frame[name]) for frame in (samples, reference))
        if here and there and here != there:
            found.append({"cause": cause, "name": name, "here": _shown(here), "reference": _shown(there)})
    return found


def _cause_of(name: str) -> str | None:
    return next((cause for cause, names in _SETTINGS.items() if name in names), None)


def _values(column: pl.Series) -> list[str]:
    """Distinct values of a setting; many of them are no setting of the run but of the item."""
    as_text = pl.Series(sorted({str(value) for value in column.drop_nulls().to_list()}), dtype=pl.String)
    return as_text.to_list() if len(as_text) <= 8 else []


def _shown(values: list[str]) -> str:
    text = ", ".join(values)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _config(config: Mapping[str, Any], reference_config: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in sorted(set(config) & set(reference_config)):
        cause = _cause_of(name)
        here, there = config[name], reference_config[name]
        if cause and here is not None and there is not None and str(here) != str(there):
            found.append({"cause": cause, "name": name, "here": _shown([str(here)]), "reference": _shown([str(there)])})
    return found


def _end_of_text(config: Mapping[str, Any]) -> str | None:
    """A mismatch of the tokenizer's end token and the one generation stops at, in words; None if none is logged."""
    ends = [next((str(config[name]) for name in names if config.get(name) is not None), None) for names in _END_OF_TEXT]
    if None in ends or ends[0] == ends[1]:
        return None
    return f"tokenizer ends at {ends[0]}, generation at {ends[1]}"

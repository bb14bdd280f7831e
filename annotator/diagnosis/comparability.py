"""May two runs be compared at all? Prompts, versions, targets, decoding and scoring, item by item where logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from annotator.diagnosis.layouts import layout_of

_PROMPT = ("prompt_hash", "prompt")
_DOCUMENT = ("doc_hash", "target_hash")
# Columns of samples (also nested, as "decoding.shots") and keys of a run's config that belong to one cause each. The
# second value says whether a difference forbids the comparison; the others are only listed, since what they do shows in
# the outputs themselves.
_SETTINGS = {
    "temperature": ("decoding_changed", True),
    "top_p": ("decoding_changed", True),
    "top_k": ("decoding_changed", True),
    "do_sample": ("decoding_changed", True),
    "num_beams": ("decoding_changed", True),
    "repetition_penalty": ("decoding_changed", True),
    "max_tokens": ("decoding_changed", False),
    "max_gen_toks": ("decoding_changed", False),
    "max_new_tokens": ("decoding_changed", False),
    "stop": ("decoding_changed", False),
    "until": ("decoding_changed", False),
    "gen_kwargs": ("decoding_changed", False),
    "chat_template": ("prompt_changed", True),
    "chat_template_sha": ("prompt_changed", True),
    "apply_chat_template": ("prompt_changed", True),
    "system_instruction": ("prompt_changed", True),
    "system_instruction_sha": ("prompt_changed", True),
    "system_prompt": ("prompt_changed", True),
    "fewshot_as_multiturn": ("prompt_changed", True),
    "prompting": ("prompt_changed", True),
    "num_fewshot": ("version_drift", True),
    "n_shot": ("version_drift", True),
    "n-shot": ("version_drift", True),
    "shots": ("version_drift", True),
    "task_version": ("version_drift", True),
    "dataset_revision": ("version_drift", True),
    "fewshot_seed": ("version_drift", True),
    "harness_version": ("version_drift", False),
    "git_hash": ("version_drift", False),
    "task_hash": ("version_drift", False),
    "filter": ("version_drift", False),
    "metric": ("version_drift", False),
    "scorer": ("version_drift", False),
    "correct_rule": ("version_drift", False),
    "add_bos_token": ("bos", True),
    "bos_token": ("bos", True),
    "bos_token_id": ("bos", True),
}
_END_OF_TEXT = (("eos_token", "tokenizer_eos_token"), ("eot_token",)), (("eos_token_id",), ("eot_token_id",))


_LOOKED_AT = 10_000


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
        document and target hashes), prompt_layouts (the most frequent layout of the prompts that differ, in either run;
        null where none differ or texts are not logged), settings: [{cause, name, here, reference}] that differ,
        samples_per_item of both.
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
        "prompt_layouts": _layouts(samples, reference, prompts) if prompts else None,
        "settings": settings,
        "samples_per_item": [round(frame.height / frame["item_id"].n_unique(), 3) for frame in (samples, reference)],
        "end_of_text": _end_of_text(samples, config or {}),
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


def _layouts(samples: pl.DataFrame, reference: pl.DataFrame, differing: set[str]) -> dict[str, str] | None:
    """How the prompts that differ are laid out in each run: "Q: A: after 3" against "Q: A:" are lost examples, say."""
    if "prompt" not in samples.columns or "prompt" not in reference.columns:
        return None
    shown = {}
    wanted = sorted(differing)[:_LOOKED_AT]
    for name, frame in (("here", samples), ("reference", reference)):
        prompts = frame.filter(pl.col("item_id").is_in(wanted))["prompt"].drop_nulls().unique().to_list()
        counts = Counter(layout_of(prompt) for prompt in prompts)
        if not counts:
            return None
        shown[name] = min(counts, key=lambda layout: (-counts[layout], layout))
    return shown


def _per_item(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    value = pl.col(name).cast(pl.String, strict=False)
    return frame.select("item_id", value).drop_nulls().group_by("item_id").agg(pl.col(name).min()).sort("item_id")


def _settings(samples: pl.DataFrame, reference: pl.DataFrame) -> list[dict[str, Any]]:
    found = []
    for name in sorted(set(samples.columns) & set(reference.columns)):
        if name.rsplit(".", 1)[-1] not in _SETTINGS:
            continue
        here, there = (_values(frame[name]) for frame in (samples, reference))
        if here and there and here != there:
            found.append(_setting(name, _shown(here), _shown(there)))
    return found


def _setting(name: str, here: str, there: str) -> dict[str, Any]:
    cause, forbids = _SETTINGS[name.rsplit(".", 1)[-1]]
    return {"cause": cause, "name": name, "here": here, "reference": there, "forbids": forbids}


def _values(column: pl.Series) -> list[str]:
    """Distinct values of a setting; many of them are no setting of the run but of the item."""
    values = sorted({str(value) for value in column.drop_nulls().head(_LOOKED_AT).to_list()})
    return values if len(values) <= 8 else []


def _shown(values: list[str]) -> str:
    text = ", ".join(values)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _config(config: Mapping[str, Any], reference_config: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in sorted(set(config) & set(reference_config) & set(_SETTINGS)):
        here, there = config[name], reference_config[name]
        if here is not None and there is not None and str(here) != str(there):
            found.append(_setting(name, _shown([str(here)]), _shown([str(there)])))
    return found


def _end_of_text(samples: pl.DataFrame, config: Mapping[str, Any]) -> str | None:
    """A mismatch of the tokenizer's end token and the one generation stops at, in words; None if none is logged."""
    named = [name for pair in _END_OF_TEXT for names in pair for name in names if name in samples.columns]
    logged = {name: values[0] for name in named if len(values := _values(samples[name])) == 1}
    known = {**logged, **{name: str(value) for name, value in config.items() if value is not None}}
    for tokenizer, generation in _END_OF_TEXT:
        ends = [next((known[name] for name in names if name in known), None) for names in (tokenizer, generation)]
        if None not in ends and ends[0] != ends[1]:
            return f"the tokenizer ends texts with {ends[0]}, generation stops at {ends[1]}"
    return None

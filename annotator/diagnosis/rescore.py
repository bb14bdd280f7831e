"""What can be seen in a model's outputs, and what they would score under another rule: pure functions of the log.

Every rule is applied to both runs of a comparison alike. Names of the rules are stable ids:

    as_logged         the score of the harness
    cut_end_marker    cut at the first literal end marker (<|im_end|>, </s>, ...), then the first answer
    cut_first_answer  cut at an end marker, at the next few-shot question, or after the first complete answer
    ext_first, ext_last, ext_majority    the first, the last, the most frequent stated answer
    strip             outputs with stray white space around them: the first answer
    ext_flexible      right if the first or last stated answer is, or the last number or letter, before a next question
    gold_in_tail      right if the gold answer stands in the last 200 characters (generous: an upper bound)
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import polars as pl

from annotator.diagnosis.answers import (
    END_MARKERS,
    Gold,
    answers_in,
    cut_end_marker,
    gold_in_tail,
    gold_of,
    last_token,
    majority,
    matches,
)
from annotator.diagnosis.layouts import templates_from
from annotator.errors import BadInput, did_you_mean

RULES = (
    "as_logged",
    "cut_end_marker",
    "cut_first_answer",
    "ext_first",
    "ext_last",
    "ext_majority",
    "strip",
    "ext_flexible",
    "gold_in_tail",
)
SIGNS = (
    "capped",
    "answered",
    "run_on",
    "next_question",
    "end_marker",
    "loops",
    "empty",
    "failed",
    "padded",
    "prompt_cut",
    "unextracted",
)
_CAPPED = {"length", "max_tokens", "model_length", "max_new_tokens", "max_length"}
_TOKEN_COLUMNS = ("output_tokens", "completion_tokens", "usage.output_tokens", "n_output_tokens", "res_length")
_CUT_COLUMNS = ("truncated_input_tokens", "truncated_tokens_count")
_TEMPLATE_COLUMNS = ("prompt_template", "template", "prompt_format")
_EXTRACTED_COLUMNS = ("parsed_answer", "filtered_response", "extracted_answer", "filtered_resps", "pred")
_NEXT_QUESTION = re.compile(r"\n\s*(?:Q:|Question:|Problem:|#+ (?:Question|Problem|Instruction)|User:|Human:)")
_FAILURE = re.compile(
    r"(?i)^\s*(?:error code: \d+|http(?: error)? [45]\d\d|\[?(?:api )?error\b|rate limit|traceback \()"
)
_CLOSING = " .\n\t*`}\"')$\\]/"
_RUN_ON_CHARACTERS = 15
_LONGEST_PERIOD, _LOOP_CHARACTERS = 200, 60


def evidence(
    items: pl.DataFrame, samples: pl.DataFrame, *, progress: Callable[[int], None] | None = None
) -> pl.DataFrame:
    """One row an output: what can be seen in it (SIGNS, bool) and its score under each of RULES (f64).

    Args:
        items: item_id, target, choices?.
        samples: item_id, score, and as far as known response, finish_reason, max_tokens, output_tokens, error,
            truncated_input_tokens, prompt_template or prompt, task, and what the harness extracted.

    Returns:
        item_id, item (its number), sample_index, response, template (named, or read from the prompts), asks ("choice",
        "number", "text"), SIGNS, RULES; sorted by item and sample. Outputs of unknown items are left out. Where an
        output has no text, or no answer is stated in it, every rule keeps the score as logged.
    """
    columns = ["item_id", *(name for name in ("target", "choices") if name in items.columns)]
    joined = samples.join(items.select(columns).unique("item_id"), on="item_id", how="inner", suffix="_of_item")
    if "sample_index" not in joined.columns:
        joined = joined.with_columns(sample_index=pl.int_range(pl.len()).over("item_id"))
    joined = joined.sort("item_id", "sample_index")
    target = "target_of_item" if "target_of_item" in joined.columns else "target"
    choices = "choices_of_item" if "choices_of_item" in joined.columns else "choices"
    texts = _column(joined, "response")
    golds = _golds(_column(joined, target), _column(joined, choices))
    logged = joined["score"].cast(pl.Float64).to_list()
    signs: dict[str, list[bool]] = {name: [] for name in SIGNS}
    scores: dict[str, list[float]] = {name: [] for name in RULES}
    known = zip(texts, golds, logged, _capped(joined), _errors(joined), _prompt_cut(joined), _unextracted(joined))
    for row, (text, gold, score, capped, error, prompt_cut, unextracted) in enumerate(known):
        seen, rescored = _one(text, gold, score)
        seen |= {"capped": capped, "prompt_cut": prompt_cut, "unextracted": unextracted}
        seen["failed"] = seen["failed"] or error
        for name in SIGNS:
            signs[name].append(seen[name])
        for name in RULES:
            scores[name].append(rescored.get(name, score))
        if progress and row % 1000 == 999:
            progress(row + 1)
    return pl.DataFrame(
        {
            "item_id": joined["item_id"],
            "item": joined["item_id"].rle_id().cast(pl.Int64),
            "sample_index": joined["sample_index"],
            "response": pl.Series(texts, dtype=pl.String),
            "template": _template(joined),
            "asks": pl.Series([gold and gold.kind for gold in golds], dtype=pl.String),
            **{name: pl.Series(values, dtype=pl.Boolean) for name, values in signs.items()},
            **{name: pl.Series(values, dtype=pl.Float64) for name, values in scores.items()},
        }
    )


def rescored(items: pl.DataFrame, samples: pl.DataFrame, *, rule: str) -> pl.DataFrame:
    """The same samples (those of known items, by item and sample) scored by one of RULES.

    Raises:
        BadInput: no such rule.
    """
    if rule not in RULES:
        raise BadInput(f"no re-scoring rule {rule!r}", remedy=did_you_mean(rule, RULES))
    scores = evidence(items, samples)[rule]
    known = samples.join(items.select("item_id").unique(), on="item_id", how="semi")
    return known.sort("item_id", "sample_index").with_columns(scores.alias("score"))


def own_part(text: str) -> str:
    """The text up to an end marker or to the next few-shot question that the model asked itself."""
    text = cut_end_marker(text)
    match = _NEXT_QUESTION.search(text, 1)
    return text[: match.start()] if match and text[: match.start()].strip() else text


def cut_first_answer(text: str, gold: Gold) -> str:
    """The text up to an end marker, the next question, or the end of the first complete answer.

    >>> cut_first_answer("So the answer is (B).\\n\\nQ: Which one?\\nA: the answer is (C).", gold_of("(B)"))
    'So the answer is (B)'
    """
    head = own_part(text)
    found = answers_in(head, gold) or answers_in(text, gold)
    return text[: found[0].end] if found else head


def _one(text: str | None, gold: Gold | None, logged: float) -> tuple[dict[str, bool], dict[str, float]]:
    """Signs and scores of one output."""
    seen = dict.fromkeys(SIGNS, False)
    if text is None:
        return seen, {}
    seen["empty"] = not text.strip()
    seen["failed"] = bool(_FAILURE.search(text))
    seen["end_marker"] = any(marker in text for marker in END_MARKERS)
    seen["next_question"] = bool(_NEXT_QUESTION.search(text, 1))
    seen["loops"] = _loops(text)
    seen["padded"] = text != text.strip()
    if gold is None or seen["empty"]:
        return seen, {}
    found = answers_in(text, gold)
    if not found:
        tail = float(gold_in_tail(text, gold))
        return seen, {
            "gold_in_tail": max(tail, logged),
            "ext_flexible": max(logged, _right(last_token(text, gold), gold)),
        }
    seen["answered"] = True
    seen["run_on"] = len(text[found[0].end :].strip(_CLOSING)) >= _RUN_ON_CHARACTERS
    first, last, most = (_right(value, gold) for value in (found[0].value, found[-1].value, majority(found)))
    scores = {"ext_first": first, "ext_last": last, "ext_majority": most}
    cut = cut_first_answer(text, gold)
    if text[len(cut) :].strip(_CLOSING):
        head = answers_in(cut, gold)
        scores["cut_first_answer"] = _right(head[0].value, gold) if head else logged
    if seen["end_marker"]:
        head = answers_in(cut_end_marker(text), gold)
        scores["cut_end_marker"] = _right(head[0].value, gold) if head else logged
    if seen["padded"] and not seen["run_on"]:
        scores["strip"] = max(first, logged)
    flexible = answers_in(own_part(text), gold)
    scores["ext_flexible"] = max(
        logged,
        first,
        _right(flexible[-1].value, gold) if flexible else 0.0,
        _right(last_token(own_part(text), gold), gold),
    )
    scores["gold_in_tail"] = max(logged, float(gold_in_tail(text, gold)))
    return seen, scores


def _right(value: str | None, gold: Gold) -> float:
    return float(value is not None and matches(value, gold))


def _loops(text: str) -> bool:
    """Whether the text ends in at least three, and 60 characters, of the same again."""
    tail = text.rstrip()[-(3 * _LONGEST_PERIOD) :]
    for period in range(1, len(tail) // 3 + 1):
        if tail[-1] != tail[-1 - period]:
            continue  # spares most of the slices below
        times = max(3, -(-_LOOP_CHARACTERS // period))
        if period * times <= len(tail) and tail.endswith(tail[-period:] * times):
            return True
    return False


def _column(frame: pl.DataFrame, name: str) -> list:
    return frame[name].to_list() if name in frame.columns else [None] * frame.height


def _golds(targets: list[str | None], choices: list[list[str] | None]) -> list[Gold | None]:
    known: dict[tuple, Gold] = {}
    golds: list[Gold | None] = []
    for target, options in zip(targets, choices):
        if target is None:
            golds.append(None)
            continue
        key = (target, tuple(options or ()))
        if key not in known:
            known[key] = gold_of(target, options)
        golds.append(known[key])
    return golds


def _capped(frame: pl.DataFrame) -> list[bool]:
    """Outputs that ended because they were long enough: by their finish reason, else by their length in tokens."""
    reasons, most = _column(frame, "finish_reason"), _column(frame, "max_tokens")
    tokens = next((_column(frame, name) for name in _TOKEN_COLUMNS if name in frame.columns), [None] * frame.height)
    return [
        reason.lower() in _CAPPED if reason else bool(count and cap and count >= 0.98 * cap)
        for reason, count, cap in zip(reasons, tokens, most)
    ]


def _errors(frame: pl.DataFrame) -> list[bool]:
    return [bool(error) and str(error).lower() not in ("none", "false") for error in _column(frame, "error")]


def _prompt_cut(frame: pl.DataFrame) -> list[bool]:
    name = next((name for name in _CUT_COLUMNS if name in frame.columns), "")
    return [isinstance(count, int | float) and count > 0 for count in _column(frame, name)]


def _template(frame: pl.DataFrame) -> pl.Series:
    name = next((name for name in _TEMPLATE_COLUMNS if name in frame.columns), None)
    if name:
        return frame[name].cast(pl.String)
    if "task" in frame.columns:
        tasks = frame["task"].to_list()
    else:
        tasks = [item_id.rpartition("/")[0] for item_id in frame["item_id"]]
    return pl.Series(templates_from(_column(frame, "prompt"), tasks), dtype=pl.String)


def _unextracted(frame: pl.DataFrame) -> list[bool]:
    """Outputs from which the harness extracted nothing, where the log says what it extracted."""
    name = next((name for name in _EXTRACTED_COLUMNS if name in frame.columns), None)
    if name is None or frame[name].null_count() == frame.height:
        return [False] * frame.height
    return [value is None or "[invalid]" in str(value) for value in frame[name].to_list()]


def item_numbers(seen: pl.DataFrame) -> np.ndarray:
    """Number of each output's item, 0 for the first (`seen` is sorted by item)."""
    return np.cumsum(_first_of_item(seen)) - 1


def item_means(seen: pl.DataFrame, values: np.ndarray) -> np.ndarray:
    """Mean of a per-output value for each item, in item order (`seen` is sorted by item)."""
    starts = np.flatnonzero(_first_of_item(seen))
    counts = np.diff(np.append(starts, seen.height))
    return np.add.reduceat(np.asarray(values, dtype=np.float64), starts) / counts if len(starts) else np.zeros(0)


def _first_of_item(seen: pl.DataFrame) -> np.ndarray:
    return np.diff(seen["item"].to_numpy(), prepend=-1) != 0

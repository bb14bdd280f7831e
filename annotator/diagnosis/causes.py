"""What besides training data makes scores fall: the signs of each cause in the logs, and how to undo it.

Ids are stable. Causes are in the order in which they are believed: what makes runs incomparable, then termination and
length, then extraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Marks = NDArray[np.bool_]

LONG, SHORT = 0.7, 0.5  # shares of a run's longest outputs, and of the reference's output, that count as long and short


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to lose score without losing skill.

    sign: marks the outputs that show it; None where the evidence is a setting, not an output.
    rule: the re-scoring rule that undoes it; None where the marked outputs must be left out instead.
    mirrored: sign and rule of the same cause the other way round, taken where it marks more outputs.
    what, advice: for people.
    """

    id: str
    what: str
    advice: str
    sign: Callable[[pl.DataFrame], Marks] | None = None
    rule: str | None = None
    mirrored: tuple[Callable[[pl.DataFrame], Marks], str] | None = None


def _flag(*names: str) -> Callable[[pl.DataFrame], Marks]:
    return lambda seen: np.any([seen[name].to_numpy() for name in names], axis=0)


def _unanswered(seen: pl.DataFrame) -> Marks:
    spoken = ~(seen["answered"] | seen["empty"] | seen["failed"]) & seen["response"].is_not_null()
    return spoken.to_numpy()


def _cut_long(seen: pl.DataFrame) -> Marks:
    """No answer, and ended by the cap, or (where that is not logged) as long as the run's outputs ever get."""
    length = seen["response"].str.len_chars().fill_null(0).to_numpy()
    longest = float(np.quantile(length, 0.99)) if len(length) else 0.0
    capped = seen["capped"].to_numpy()
    near = capped if capped.any() else (length >= LONG * longest) & (longest > 0)
    return _unanswered(seen) & near


def _cut_short(seen: pl.DataFrame) -> Marks:
    """No answer, not cut by the cap, and shorter than half of what the reference wrote on that item."""
    length = seen["response"].str.len_chars().fill_null(0).to_numpy()
    if "reference_length" not in seen.columns:
        return np.zeros(len(length), dtype=bool)
    short = length < SHORT * seen["reference_length"].fill_null(0).to_numpy()
    return _unanswered(seen) & short & ~seen["capped"].to_numpy()


def _wrong_but(rule: str, *, not_by: str | None = None) -> Callable[[pl.DataFrame], Marks]:
    def marks(seen: pl.DataFrame) -> Marks:
        found = (seen["as_logged"] < 1.0) & (seen[rule] >= 1.0)
        if not_by:
            found &= seen[not_by] < 1.0
        return found.to_numpy()

    return marks


CAUSES = (
    Cause(
        "prompt_changed",
        "the prompt, chat template or system prompt differs between the runs",
        "Run both checkpoints with the same prompts (same chat template, system prompt and few-shot examples) before "
        "looking at data.",
    ),
    Cause(
        "version_drift",
        "task version, documents, targets, few-shot count or scoring rule differ between the runs",
        "Re-run the reference with today's harness and data set version, or score only the items whose document and "
        "target hashes agree.",
    ),
    Cause(
        "decoding_changed",
        "decoding settings differ between the runs",
        "Use one temperature, top-p and token limit for both runs, or compare only outputs with equal settings.",
    ),
    Cause(
        "bos",
        "the begin-of-text token is handled differently",
        "Check that exactly one begin-of-text token stands before each prompt; re-run, since logs cannot undo this.",
    ),
    Cause(
        "prompt_truncated",
        "prompts were cut to fit the context",
        "Raise the context length or use fewer shots; meanwhile leave the items with cut prompts out of both runs.",
        _flag("prompt_cut"),
    ),
    Cause(
        "prompt_format",
        "the drop sits in one prompt template",
        "Report several prompt formats side by side; check what this template changes for this checkpoint.",
    ),
    Cause(
        "failed_requests",
        "empty outputs or error messages were scored as answers",
        "Repeat the failed requests; until then leave those outputs out and report how many there were.",
        _flag("empty", "failed"),
    ),
    Cause(
        "end_marker",
        "literal end-of-turn markers stand in the text: generation stops at another token than the model writes",
        "Make the end-of-text id of tokenizer, generation settings and model agree (eos_token, eot_token); until then "
        "cut outputs at the marker.",
        _flag("end_marker"),
        "cut_end_marker",
    ),
    Cause(
        "termination",
        "the model does not stop after its answer: it writes on, asks itself the next question, or loops",
        "Check whether the label mask drops the end-of-text token (EOS) from the training loss, as it does with pad = "
        "eos (a collator that labels pad positions -100 then removes every EOS). Log the loss on EOS positions and the "
        "finish reason of every output. Until it is mended, re-score both runs with cut_first_answer.",
        _flag("run_on", "next_question", "loops"),
        "cut_first_answer",
    ),
    Cause(
        "generation_cap",
        "outputs hit the token limit before an answer",
        "Raise the token limit and log finish reasons; until then leave cut outputs out of both runs.",
        _cut_long,
    ),
    Cause(
        "stop_string",
        "a stop string fires before the answer",
        "Remove short stop strings or anchor them to a line start; the lost text is not in the log, so re-run.",
        _cut_short,
    ),
    Cause(
        "whitespace",
        "stray white space around the output defeats an exact match",
        "Strip outputs before scoring, and check the space at the end of the prompt.",
        _wrong_but("strip"),
        "strip",
    ),
    Cause(
        "answer_position",
        "the extractor takes another of several stated answers than it did for the reference",
        "Score both runs with one version of the harness; several set a new rule (first or last match) in an upgrade.",
        _wrong_but("ext_first", not_by="ext_last"),
        "ext_first",
        (_wrong_but("ext_last", not_by="ext_first"), "ext_last"),
    ),
    Cause(
        "extraction",
        "right answers are in the text but the extraction rule misses them",
        "Use a tolerant extraction rule for both runs (stated answer, box, last number or letter) and report strict "
        "and flexible scores side by side.",
        _wrong_but("ext_flexible"),
        "ext_flexible",
    ),
    Cause(
        "noise",
        "the two runs do not differ beyond chance",
        "Take more samples per item or more items before looking for causes.",
    ),
)
BY_ID = {cause.id: cause for cause in CAUSES}
INCOMPARABLE = ("prompt_changed", "version_drift", "decoding_changed", "bos")

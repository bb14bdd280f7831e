"""The template of a prompt, read from the prompt itself where no column names it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

FEWEST_OF_A_LAYOUT = 20  # outputs; rarer layouts are what single items look like
_LABEL = re.compile(
    r"(?m)^[ \t]*(?:"
    r"(?P<markup><\|[^|\n]{1,40}\|>\w*|\[/?INST\]|<</?SYS>>|</?[A-Za-z_]{1,20}>)"
    r"|(?P<heading>#{1,6}[ \t]*[A-Za-z][A-Za-z ]{0,24}?):?[ \t]*$"
    r"|(?P<label>\**[A-Z][A-Za-z]*(?: [A-Za-z]+){0,2}\**):"
    r")"
)


def layout_of(prompt: str) -> str:
    """What the lines of a prompt are marked with, in order, and how many examples come before its question.

    Chat markup, headings and labels such as "Question:" at the start of a line count; words do not. A chat logged as
    JSON messages is read as its roles and contents.

    >>> layout_of("Q: 1+1?\\nA: 2\\n\\nQ: 2+2?\\nA:"), layout_of("### Question\\n2+2?\\n### Answer\\n")
    ('Q: A: after 1', '### Question ### Answer')
    >>> layout_of('[{"role": "user", "content": "Question: 2+2?\\\\nAnswer:"}]')
    '<|user|> Question: Answer:'
    """
    marks = [_mark(match) for match in _LABEL.finditer(_as_text(prompt))]
    if not marks:
        return "no labels"
    shots = Counter(marks)[marks[-1]] - 1
    own = marks[len(marks) - marks[::-1].index(marks[-1], 1) :] if shots else marks
    return " ".join(dict.fromkeys(own)) + (f" after {shots}" if shots else "")


def _as_text(prompt: str) -> str:
    """A prompt as one text, with the roles of a chat as markup of their own."""
    if not prompt.startswith("[{"):
        return prompt
    try:
        messages = json.loads(prompt)
        return "\n".join(f"<|{message['role']}|>\n{message['content']}" for message in messages)
    except (ValueError, KeyError, TypeError):
        return prompt


def _mark(match: re.Match[str]) -> str:
    if match["label"]:
        return match["label"].strip("*") + ":"
    return re.sub(r"\s+", " ", match["markup"] or match["heading"]).strip()


def templates_from(prompts: Sequence[str | None], tasks: Sequence[str | None]) -> list[str | None]:
    """The layout of each prompt, where its task is asked in several; None elsewhere.

    A task that always has the same layout tells nothing apart but itself, so its prompts get None, as do layouts of
    fewer than 20 prompts.
    """
    known: dict[str | None, str | None] = {None: None}
    for prompt in prompts:
        if prompt not in known:
            known[prompt] = layout_of(prompt)
    layouts = [known[prompt] for prompt in prompts]
    counts = Counter(zip(tasks, layouts))
    common = {pair for pair, count in counts.items() if pair[1] is not None and count >= FEWEST_OF_A_LAYOUT}
    several = {task for task, count in Counter(task for task, _ in common).items() if count > 1}
    return [layout if task in several and (task, layout) in common else None for task, layout in zip(tasks, layouts)]

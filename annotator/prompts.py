"""The texts sent to a judge: `prompts/item.md` and `prompts/document.md`, with the codebook rendered into them.

The static part is the system message, equal for all records of a run, so that providers' prompt caches hit; the record
comes last, in the user message, between two lines that carry a mark which the record cannot contain.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import fingerprint, short, without_surrogates
from annotator.resources import resource
from annotator.taxonomy import Kind, Taxonomy

_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt of one side.

    Attributes:
        system: the static prefix, with the codebook.
        fingerprint: changes with any word of the template, the taxonomy, or the way a record is fenced.
        version: short name for tables, such as "item-3f2a9c01be77".
    """

    kind: Kind
    system: str
    fingerprint: str
    version: str

    def user(self, record: str) -> str:
        """The user message: the record, fenced as data.

        The mark is a hash of the record, so the same record gives the same message (and cache key), and no record can
        contain its own mark to fake the closing line.
        """
        text = as_sent(record)
        mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        return (
            f"----- {self.kind} {mark} begins -----\n{text}\n----- {self.kind} {mark} ends -----\n"
            f"Label the {self.kind} above by the codebook."
        )


def as_sent(record: str) -> str:
    """A record as a judge sees it: control characters and lone surrogates, which some servers refuse, are U+FFFD."""
    return without_surrogates(_CONTROL.sub("\ufffd", record))


def load_prompt(kind: Kind, taxonomy: Taxonomy, path: str | Path | None = None) -> Prompt:
    """Render the prompt of one side from its template (default: the shipped one).

    A template is plain text with two slots, `{{ codebook }}` and `{{ tiebreaks }}`.

    Raises:
        BadInput: if the file cannot be read, has an unknown slot, or lacks the codebook.
    """
    source = Path(path) if path is not None else resource("prompts", f"{kind}.md")
    try:
        template = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the prompt cannot be read ({error})", where=str(source)) from None
    parts = {"codebook": render_codebook(taxonomy, kind), "tiebreaks": _bullets(taxonomy.tiebreaks[kind])}
    used = _SLOT.findall(template)
    for slot in used:
        if slot not in parts:
            raise BadInput(f"unknown slot {{{{ {slot} }}}}", where=str(source), remedy=did_you_mean(slot, parts))
    if "codebook" not in used:
        remedy = "Without it the judge does not know what the values mean."
        raise BadInput("the slot {{ codebook }} is missing", where=str(source), remedy=remedy)
    system = _SLOT.sub(lambda slot: parts[slot[1]], template).strip()
    digest = fingerprint({"system": system, "user": Prompt(kind, "", "", "").user("")})
    return Prompt(kind=kind, system=system, fingerprint=digest, version=f"{kind}-{short(digest)}")


def render_codebook(taxonomy: Taxonomy, kind: Kind) -> str:
    """The axes, values and definitions of one side as the judge reads them, in the order of the taxonomy file."""
    blocks = []
    for axis in taxonomy.axes.values():
        lines = [f"## {axis.name}", axis.question, f"Rule: {axis.rule[kind]}"]
        lines += [f"- {value}: {meaning}" for value, meaning in axis.definitions[kind].items()]
        blocks.append("\n".join(lines))
    if kind == "document":
        for grade, meanings in taxonomy.grades.items():
            lines = [f"## {grade}", taxonomy.grade_questions[grade]]
            lines += [f"- {value}: {meaning}" for value, meaning in meanings.items()]
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _bullets(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)

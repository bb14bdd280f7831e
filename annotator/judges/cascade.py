"""A cascade: a student labels what it is sure of, an LLM the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.judges import Judge, Pace, Reply, Request, Sampling, StudentJudge
from annotator.prompts import Prompt
from annotator.taxonomy import Kind, Taxonomy

DEFAULT_BELOW = 0.6
# Greedy, so that a folder may have commas in its name.
_SPEC = re.compile(r"cascade:(?P<student>embedded(?::accurate)?|student:.+),(?P<asked>(?:openai|instructor):.+)")


@dataclass(frozen=True, slots=True)
class CascadeJudge:
    """Two judges behind one face: see `Judge` for the attributes that all judges have.

    Of each record the student's confidence decides, which is the least over the four axes of the calibrated probability
    of its answer: from `below` upwards the student's label stands, under it the record is put to `asked`.

    student: what labels columns of texts at once. asked: what is asked for single records. below: in (0, 1].
    """

    student: StudentJudge
    asked: Judge
    below: float

    @property
    def kind(self) -> Kind:
        """Of the records, as both judges have it."""
        return self.asked.kind

    @property
    def name(self) -> str:
        """The spec, without secrets."""
        return f"cascade:{self.student.name},{self.asked.name}"

    @property
    def model(self) -> str:
        """What is asked and paid for."""
        return self.asked.model

    @property
    def prompt(self) -> Prompt:
        """Of the asked judge."""
        return self.asked.prompt

    @property
    def taxonomy(self) -> Taxonomy:
        """The vocabulary of both."""
        return self.asked.taxonomy

    @property
    def fixed_tokens(self) -> int:
        """Of a request to the asked judge."""
        return self.asked.fixed_tokens

    @property
    def pace(self) -> Pace:
        """Of the asked judge."""
        return self.asked.pace

    @property
    def sampling(self) -> Sampling:
        """Of the asked judge."""
        return self.asked.sampling

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run. Paid answers are kept under `asked.identity`: another threshold finds them again."""
        both = {"student": self.student.identity, "asked": self.asked.identity}
        return {"api": "cascade", "below": self.below} | both

    def predict(self, texts: Sequence[str]) -> pl.DataFrame:
        """The student's labels of some texts (see `Student.predict`), with is_sure (bool): whether they stand."""
        labels = self.student.student.predict(texts, self.kind)
        return labels.with_columns(is_sure=pl.col("confidence") >= self.below)

    async def ask(self, request: Request) -> Reply:
        """What the asked judge says: called for records that the student is not sure of."""
        return await self.asked.ask(request)

    async def close(self) -> None:
        """See `Judge.close`."""
        await self.asked.close()


def specs_of(spec: str) -> tuple[str, str]:
    """("student:PATH", "openai:MODEL") of "cascade:student:PATH,openai:MODEL".

    Raises:
        BadInput: the spec does not name a student and an LLM.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        remedy = "Write cascade:student:PATH,openai:MODEL or cascade:embedded,openai:MODEL."
        raise BadInput("a cascade needs a student and an LLM", where=spec, remedy=remedy)
    return found["student"], found["asked"]

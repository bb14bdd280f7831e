"""The settings file of `annotator run`: one TOML file for the whole loop, checked exactly before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotator.errors import BadInput, did_you_mean
from annotator.resources import resource
from annotator.taxonomy import Kind


class Section(BaseModel):
    """A table of the file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(Section):
    """Files, folders or globs, and how their columns are named. `run` picks one run where a file holds several."""

    paths: Annotated[list[str], Field(min_length=1)]
    columns: dict[str, str] = {}
    run: str | None = None


Share = Annotated[float, Field(gt=0, le=1)]


class Judging(Section):
    """Which judge labels each side, and how it is reached. Keys come from the environment, never from this file.

    `below`: of a cascade, the student's confidence under which the LLM is asked.
    """

    items: str = "embedded"
    documents: str = "embedded"
    base_url: str | None = None
    concurrency: Annotated[int, Field(ge=1)] = 64
    max_cost: Annotated[float, Field(gt=0)] | None = None
    below: Share | None = None

    def spec(self, kind: Kind) -> str:
        """The judge of one side."""
        return self.items if kind == "item" else self.documents

    def threshold(self, kind: Kind) -> float | None:
        """`below`, if the judge of that side is a cascade."""
        return self.below if self.spec(kind).startswith("cascade:") else None


_METRIC = r"^(mean|(pass[@^]|maj@)[1-9]\d*|g-pass@[1-9]\d*:(0?\.\d+|1(\.0+)?))$"


class Slicing(Section):
    """How failing slices are looked for."""

    metric: Annotated[str, Field(pattern=_METRIC)] = "mean"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_items: Annotated[int, Field(ge=2)] | None = None


class Ranking(Section):
    """How much to upsample, and of what at most; see `annotator.rank`."""

    budget_tokens: Annotated[int, Field(gt=0, lt=2**63)]
    max_repeats: Annotated[int, Field(ge=1)] = 4
    max_source_share: Share | None = 0.5
    max_host_share: Share | None = 0.05
    replay_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    languages: list[str] | None = None


class Exporting(Section):
    """Which trainer formats to write."""

    formats: list[Literal["jsonl", "megatron", "olmo-core", "streaming", "hf"]] = ["jsonl"]


class Settings(Section):
    """One loop. All paths are relative to the folder of the settings file.

    `rules` is a rule file, or the name of a pack for a corpus that carries labels of its own; [documents] columns then
    names its columns too. `after` holds the outputs of the checkpoint trained on the result; with it the loop ends in a
    verification.
    """

    out: str
    items: Input
    samples: Input
    reference: Input | None = None
    after: Input | None = None
    documents: Input
    taxonomy: str | None = None
    rules: str | None = None
    judge: Judging = Judging()
    slices: Slicing = Slicing()
    rank: Ranking
    export: Exporting = Exporting()


def load_settings(path: str | Path) -> tuple[Settings, Path]:
    """The settings in a TOML file, and the folder that its paths are relative to.

    Raises:
        BadInput: missing file, broken TOML, an unknown key (with the nearest known one), or a value out of range.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput("no such settings file", where=str(path), remedy=f"See {_example()} for one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not valid TOML: {error}", where=str(path), remedy="Mend the file at that place.") from None
    try:
        return Settings.model_validate(raw), path.parent
    except ValidationError as error:
        raise _first_problem(error, str(path)) from None


def _example() -> Path:
    return resource("examples", "loop.toml")


def _first_problem(error: ValidationError, where: str) -> BadInput:
    # A misspelt key is both unknown and missing: name the misspelling.
    problem = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parent = _section(problem["loc"][:-1])
        return BadInput(f"unknown key {key!r}", where=where, remedy=did_you_mean(str(problem["loc"][-1]), parent))
    if problem["type"] == "missing":
        return BadInput(f"{key!r} is missing", where=where, remedy=f"See {_example()} for one with comments.")
    return BadInput(f"{key}: {problem['msg']} (it is {problem['input']!r})", where=where)


def _section(trail: tuple[Any, ...]) -> list[str]:
    """The keys allowed in the table that `trail` leads to."""
    model: Any = Settings
    for part in trail:
        annotation = model.model_fields[part].annotation
        inner = [kind for kind in getattr(annotation, "__args__", (annotation,)) if isinstance(kind, type)]
        model = next(kind for kind in inner if issubclass(kind, BaseModel))
    return list(model.model_fields)

"""What a run of the loop reads: the files that its settings name, by the settings' own names of columns and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.export import check_format
from annotator.mapping import PACKS, load_rules, renamed
from annotator.matching.corpus import check_own_columns, scan_documents
from annotator.readers import find_shards, read_items, read_samples
from annotator.readers.columns import DOCUMENTS, ITEMS, SAMPLES, check_overrides
from annotator.scores import one_run
from annotator.settings import Input, Settings
from annotator.taxonomy import Kind, load_taxonomy

_COLUMNS = {"items": ITEMS, "samples": SAMPLES, "reference": SAMPLES, "after": SAMPLES, "documents": DOCUMENTS}


class Inputs:
    """The inputs of one run.

    Attributes:
        taxonomy, rules: as the settings name them; the rules look for the corpus's columns under the user's names.
        document_columns: canonical name -> the corpus's own, without those that are the rules'.
    """

    def __init__(self, settings: Settings, base: Path, *, where: str) -> None:
        """`base`: the folder that paths are relative to. `where`: the settings file, for messages."""
        self._settings, self._base, self._where = settings, base, where
        self.taxonomy = load_taxonomy(base / settings.taxonomy if settings.taxonomy else None)
        named = settings.rules
        path = named if named is None or named in PACKS else base / named
        rules = load_rules(path, taxonomy=self.taxonomy)
        self.rules, self.document_columns = renamed(rules, settings.documents.columns)

    @contextmanager
    def told_as(self, place: str) -> Iterator[None]:
        """A message that names the option of a command names this place of the settings file instead."""
        try:
            yield
        except BadInput as error:
            if not error.where.startswith("--"):
                raise
            raise BadInput(error.what, where=f"{self._where} {place}", remedy=error.remedy) from None

    def check(self) -> None:
        """Raise BadInput for whatever is wrong with the settings or missing, as far as it can be told by a glance."""
        for name, known in _COLUMNS.items():
            source = getattr(self._settings, name)
            if source:
                with self.told_as(f"[{name}] columns"):
                    check_overrides(self.document_columns if name == "documents" else source.columns, known)
                find_shards(self.paths(source))
        check_own_columns(self.paths(self._settings.documents), rules=self.rules)
        self._check_judges()
        for name in self._settings.export.formats:
            with self.told_as("[export] formats"):
                check_format(name)

    def _check_judges(self) -> None:
        judging = self._settings.judge
        if not self.rules.needs_labels and "documents" in judging.model_fields_set:
            what = f"no judge labels the documents: the rules {self._settings.rules!r} read the corpus's own labels"
            raise BadInput(what, where=f"{self._where} [judge] documents", remedy="Leave it out, or name other rules.")
        if judging.below is not None and all(judging.threshold(kind) is None for kind in self.kinds):
            remedy = 'Leave it out, or write documents = "cascade:student:PATH,openai:MODEL".'
            raise BadInput(
                "in a run only a cascade has a threshold", where=f"{self._where} [judge] below", remedy=remedy
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The sides that a judge labels; documents that carry labels of their own are none."""
        return ("item", "document") if self.rules.needs_labels else ("item",)

    def judge_spec(self, kind: Kind) -> str:
        """The judge of one side; a student's folder is found from the settings file, as all paths are."""
        spec = self._settings.judge.spec(kind)
        scheme, student, rest = spec.partition("student:")
        is_student = student and rest and scheme in ("", "cascade:")
        return f"{scheme}{student}{self._base / rest}" if is_student else spec

    def source(self, kind: Kind) -> tuple[list[str], Mapping[str, str]]:
        """Paths and columns of the records of one side."""
        if kind == "item":
            return self.paths(self._settings.items), self._settings.items.columns
        return self.paths(self._settings.documents), self.document_columns

    def paths(self, source: Input) -> list[str]:
        """Files, folders and globs of an input, from where the command runs."""
        return [str(self._base / path) for path in source.paths]

    def identities(self, *names: str) -> list[Any]:
        """What a step's key holds of inputs ("items", "after", ...): their settings, and their files."""
        sources = [source for name in names if (source := getattr(self._settings, name)) is not None]
        return [
            part
            for source in sources
            for part in (source.model_dump(), *(shard.path for shard in find_shards(self.paths(source))))
        ]

    def items(self) -> pl.DataFrame:
        """The items."""
        return read_items(self.paths(self._settings.items), columns=self._settings.items.columns)

    def outputs(self, name: str) -> pl.DataFrame | None:
        """All outputs that the settings name as "samples", "reference" or "after", unscored ones and other runs too."""
        source = getattr(self._settings, name)
        return read_samples(self.paths(source), columns=source.columns) if source else None

    def run(self, name: str) -> pl.DataFrame | None:
        """The scored outputs of the one run that is meant."""
        outputs, source = self.outputs(name), getattr(self._settings, name)
        return None if outputs is None else one_run(outputs, run=source.run, where=name)

    def documents(self) -> pl.LazyFrame:
        """The corpus without its texts, with the columns that the rules look at."""
        paths, columns = self.source("document")
        return scan_documents(paths, columns=columns, rules=self.rules)

"""`annotator run`: the whole loop from one settings file, resumable at any step.

A step is done again only if its inputs, its settings or the version of this package have changed since it was finished,
or if it asked an LLM and rows failed. Labelling resumes inside its step too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from annotator.budget import Budget
from annotator.diagnose import diagnose
from annotator.export import export
from annotator.judges import Judge, Pace, StudentJudge, account_headers, open_judge
from annotator.label import estimate, label
from annotator.mapping import Rules, load_rules
from annotator.match import match
from annotator.prompts import load_prompt
from annotator.rank import rank
from annotator.readers import document_frame, find_shards, read_items, read_samples
from annotator.report import report
from annotator.scores import one_run
from annotator.settings import Input, Settings, load_settings
from annotator.slices import find_slices
from annotator.steps import Progress, Steps
from annotator.tables import (
    LABELS,
    MATCHES,
    SLICES,
    UPSAMPLE,
    beside,
    read_table,
    write_json,
    write_probe,
    write_table,
    write_text,
)
from annotator.taxonomy import KINDS, Kind, Taxonomy, load_taxonomy
from annotator.verify import verify

EXPORT_FILES = {
    "jsonl": "upsample.jsonl.zst",
    "megatron": "megatron.args",
    "olmo-core": "olmo-core",
    "streaming": "streaming",
    "hf": "hf",
}


@dataclass(frozen=True, slots=True)
class LoopResult:
    """Where everything is and what came out.

    Attributes:
        out: the folder of artefacts.
        artefacts: step -> path of what it wrote.
        summaries: step -> what it reported, JSON-ready.
        failed: how many records are in dead-letter files.
    """

    out: Path
    artefacts: dict[str, Path]
    summaries: dict[str, Any]
    failed: int

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        artefacts = {step: str(path) for step, path in self.artefacts.items()}
        return {"out": str(self.out), "artefacts": artefacts, "failed": self.failed, "steps": self.summaries}


def run_loop(
    settings_path: str | Path,
    *,
    out: str | Path | None = None,
    cache_dir: str | Path = "cache",
    api_key: str | None = None,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> LoopResult:
    """Do all steps of a settings file, or those that are not done yet.

    When the diagnosis says `not_data`, no documents are matched or ranked: a data change would not mend the cause.

    Args:
        out: folder for the artefacts, instead of the one in the settings.
        api_key, base_url: for LLM judges; the settings' own base_url goes first.

    Raises:
        BadInput, StoppedEarly, ServiceFailure: as the steps do; what is finished stays finished.
    """
    settings, base = load_settings(settings_path)
    loop = _Loop(settings, base, Path(out) if out else base / settings.out, progress or (lambda *_: None))
    write_probe(loop.out)
    loop.check_inputs()
    loop.label("item", cache_dir, api_key, base_url)
    loop.diagnose()
    loop.slices()
    if loop.steps.summaries["diagnosis"]["verdict"] == "not_data":
        for step in ("matches.parquet", "upsample.parquet", "export"):
            loop.steps.skip(step.removesuffix(".parquet"), step, "the diagnosis says that data is not the cause")
    else:
        loop.label("document", cache_dir, api_key, base_url)
        loop.match()
        loop.rank()
        if loop.steps.summaries["upsample"]["chosen"]:
            loop.export()
        else:
            loop.steps.skip("export", "export", "no document was chosen")
    loop.verify()
    loop.report()
    failed = sum(loop.steps.summaries.get(step, {}).get("failed", 0) for step in ("item_labels", "document_labels"))
    return LoopResult(loop.out, loop.steps.artefacts, loop.steps.summaries, failed)


def forecast_loop(
    settings_path: str | Path,
    *,
    cache_dir: str | Path = "cache",
    api_key: str | None = None,
    base_url: str | None = None,
) -> dict[str, Any]:
    """What labelling would cost, per side: records, cached, tokens, USD. Sends nothing and writes nothing.

    Raises:
        BadInput: as `run_loop`, for whatever is wrong with settings or inputs.
    """
    settings, base = load_settings(settings_path)
    loop = _Loop(settings, base, base / settings.out, lambda *_: None)
    loop.check_inputs()
    forecast = {}
    for kind in KINDS:
        judge, source = loop.judge_of(kind, api_key, base_url, cache_dir)
        paths = loop.paths(source)
        forecast[f"{kind}_labels"] = estimate(paths, judge=judge, cache_dir=cache_dir, columns=source.columns).as_dict()
    return forecast


@dataclass
class _Loop:
    """The state of one run: what the steps share."""

    settings: Settings
    base: Path
    out: Path
    progress: Progress
    taxonomy: Taxonomy = field(init=False)
    rules: Rules = field(init=False)
    steps: Steps = field(init=False)

    def __post_init__(self) -> None:
        self.taxonomy = load_taxonomy(self._path(self.settings.taxonomy))
        self.rules = load_rules(self._path(self.settings.rules), taxonomy=self.taxonomy)
        self.steps = Steps(self.out, self.taxonomy, self.progress)

    def check_inputs(self) -> None:
        """Raise BadInput for any input that is missing, before the first step starts."""
        for source in (self.settings.items, self.settings.samples, self.settings.reference, self.settings.after):
            if source:
                find_shards(self.paths(source))
        find_shards(self.paths(self.settings.documents))

    # ------------------------------------------------------------- the steps

    def judge_of(
        self, kind: Kind, api_key: str | None, base_url: str | None, cache_dir: str | Path
    ) -> tuple[Judge | StudentJudge, Input]:
        """The judge of one side, and the records that it labels."""
        judging = self.settings.judge
        judge = open_judge(
            judging.items if kind == "item" else judging.documents,
            kind=kind,
            taxonomy=self.taxonomy,
            prompt=load_prompt(kind, self.taxonomy),
            base_url=judging.base_url or base_url,
            api_key=api_key,
            headers=account_headers(os.environ),
            pace=Pace(concurrency=judging.concurrency),
            cache_dir=cache_dir,
        )
        return judge, self.settings.items if kind == "item" else self.settings.documents

    def label(self, kind: Kind, cache_dir: str | Path, api_key: str | None, base_url: str | None) -> None:
        """Items or documents -> item_labels.parquet or document_labels.parquet."""
        judge, source = self.judge_of(kind, api_key, base_url, cache_dir)
        name = f"{kind}_labels"

        def do(path: Path) -> Mapping[str, Any]:
            return label(
                self.paths(source),
                out=path,
                judge=judge,
                cache_dir=cache_dir,
                budget=Budget(max_cost_usd=self.settings.judge.max_cost),
                columns=source.columns,
                progress=lambda now: self.progress(name, "working", now),
            ).as_dict()

        # What was answered is in the cache, so only failed rows are asked for again; a student would say the same.
        failed = not isinstance(judge, StudentJudge) and bool(self.steps.summary_before(name).get("failed"))
        identity = [judge.name, judge.identity, *self._identities(source)]
        self.steps.do(name, f"{name}.parquet", identity, do, again=failed)

    def diagnose(self) -> None:
        """Raw outputs -> diagnosis.json."""

        def do(path: Path) -> Mapping[str, Any]:
            settings = self.settings
            found = diagnose(
                self._items(),
                self._outputs("samples"),
                reference=self._outputs("reference"),
                labels=self._labels("item"),
                run=settings.samples.run,
                reference_run=settings.reference.run if settings.reference else None,
            )
            write_json(path, found)
            return {name: found[name] for name in ("verdict", "cause", "drop", "recovered_share", "advice")}

        self.steps.do("diagnosis", "diagnosis.json", self._evaluation(), do)

    def slices(self) -> None:
        """Items, labels and outputs -> slices.parquet."""
        options = self.settings.slices.model_dump()

        def do(path: Path) -> Mapping[str, Any]:
            found = find_slices(
                self._items(), self._labels("item"), self._run("samples"), reference=self._run("reference"), **options
            )
            write_table(found.table, path, made_from=self._made_from(slices=options))
            return found.summary

        self.steps.do("slices", "slices.parquet", [options, *self._evaluation()], do)

    def match(self) -> None:
        """Slices and document labels -> matches.parquet."""

        def do(path: Path) -> Mapping[str, Any]:
            found = match(
                self._table("slices", SLICES),
                self._labels("document"),
                rules=self.rules,
                taxonomy=self.taxonomy,
                documents=document_frame(self.paths(self.settings.documents), columns=self.settings.documents.columns),
                item_labels=self._labels("item"),
            )
            write_table(found.table, path, made_from=self._made_from(inputs=found.summary["inputs"]))
            return found.summary

        inputs = [self.rules.fingerprint, *self._identities(self.settings.documents)]
        self.steps.do(
            "matches", "matches.parquet", [*inputs, self.steps.artefacts["slices"], *map(self._labels_path, KINDS)], do
        )

    def rank(self) -> None:
        """Matches and documents -> upsample.parquet and the table of what was dropped, beside it."""
        options = self.settings.rank.model_dump()

        def do(path: Path) -> Mapping[str, Any]:
            ranking = rank(
                self._table("matches", MATCHES),
                self._labels("document"),
                self.paths(self.settings.documents),
                self._items(),
                rules=self.rules,
                slices=self._table("slices", SLICES),
                columns=self.settings.documents.columns,
                **options,
            )
            made_from = self._made_from(rank=options, inputs=ranking.summary["inputs"])
            write_table(ranking.chosen, path, made_from=made_from)
            write_table(ranking.dropped, beside(path, "dropped.parquet"), made_from=made_from)
            return ranking.summary

        inputs = [*self._identities(self.settings.documents), *self._identities(self.settings.items)]
        tables = [self.steps.artefacts["matches"], self._labels_path("document")]
        self.steps.do("upsample", "upsample.parquet", [options, self.rules.fingerprint, *inputs, *tables], do)

    def export(self) -> None:
        """upsample.parquet -> trainer files under export/."""
        formats = self.settings.export.formats

        def do(folder: Path) -> Mapping[str, Any]:
            shutil.rmtree(folder, ignore_errors=True)  # formats that are not asked for any more
            folder.mkdir()
            upsample = self._table("upsample", UPSAMPLE)
            made_from = self._made_from()
            return {
                name: export(
                    upsample,
                    folder / EXPORT_FILES[name],
                    format=name,
                    made_from=made_from,
                )
                for name in formats
            }

        self.steps.do("export", "export", [formats, self.steps.artefacts["upsample"]], do)

    def verify(self) -> None:
        """Outputs before and after the change -> verification.json, where the settings name an `after`."""
        after = self.settings.after
        if not after or not self.steps.summaries["slices"]["slices"]:
            because = "no slice fails" if after else "the settings name no outputs after the change"
            self.steps.skip("verification", "verification.json", because)
            return

        def do(path: Path) -> Mapping[str, Any]:
            found = verify(
                self._items(),
                self._labels("item"),
                self._run("samples"),
                self._run("after") if after.run else read_samples(self.paths(after), columns=after.columns),
                self._table("slices", SLICES),
                metric=self.settings.slices.metric,
            )
            write_json(path, found)
            return {name: found[name] for name in ("verdict",) if name in found}

        inputs = [self.steps.artefacts["slices"], *self._evaluation(), *self._identities(after)]
        self.steps.do("verification", "verification.json", inputs, do)

    def report(self) -> None:
        """All artefacts -> report.html."""
        made = [path for name, path in self.steps.artefacts.items() if path.is_file()]
        self.steps.do("report", "report.html", made, lambda path: self._write_report(path))

    def _write_report(self, path: Path) -> Mapping[str, Any]:
        documents = self.settings.documents
        write_text(path, report(self.out, documents=self.paths(documents), columns=documents.columns))
        return {}

    # ------------------------------------------------- what the steps read

    def _path(self, name: str | None) -> Path | None:
        return self.base / name if name else None

    def paths(self, source: Input) -> list[str]:
        return [str(self.base / path) for path in source.paths]

    def _identities(self, source: Input) -> list[Any]:
        return [source.model_dump(), *(shard.path for shard in find_shards(self.paths(source)))]

    def _evaluation(self) -> list[Any]:
        """What diagnosis, slices and verification all depend on."""
        settings = self.settings
        sources = [source for source in (settings.items, settings.samples, settings.reference) if source]
        return [*(part for source in sources for part in self._identities(source)), self._labels_path("item")]

    def _items(self) -> pl.DataFrame:
        return read_items(self.paths(self.settings.items), columns=self.settings.items.columns)

    def _outputs(self, name: str) -> pl.DataFrame | None:
        """All outputs that the settings name, unscored ones and other runs too."""
        source = getattr(self.settings, name)
        return read_samples(self.paths(source), columns=source.columns) if source else None

    def _run(self, name: str) -> pl.DataFrame | None:
        """The scored outputs of the one run that is meant."""
        outputs, source = self._outputs(name), getattr(self.settings, name)
        return None if outputs is None else one_run(outputs, run=source.run, where=name)

    def _labels_path(self, kind: Kind) -> Path:
        return self.steps.artefacts[f"{kind}_labels"]

    def _labels(self, kind: Kind) -> pl.DataFrame:
        return self._table(f"{kind}_labels", LABELS)

    def _table(self, step: str, columns: Mapping[str, Any]) -> pl.DataFrame:
        return read_table(self.steps.artefacts[step], columns, made_by="annotator run")

    def _made_from(self, **parameters: Any) -> dict[str, Any]:
        """Fingerprints for table metadata; of content only, so that the same inputs give the same bytes anywhere."""
        return {
            "annotator": version("annotator"),
            "taxonomy": self.taxonomy.fingerprint,
            "taxonomy_version": self.taxonomy.version,
            "rules": self.rules.fingerprint,
            **parameters,
        }

"""`annotator run`: the whole loop from one settings file, resumable at any step.

A step is done again only if its inputs, its settings or the version of this package have changed since it was finished,
or if it asked an LLM and rows failed. Labelling resumes inside its step too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from annotator.budget import Budget
from annotator.diagnose import diagnose
from annotator.export import FILES, export
from annotator.exporting.place import remove
from annotator.inputs import Inputs
from annotator.judges import Judge, Pace, StudentJudge, account_headers, open_judge
from annotator.label import estimate, label
from annotator.match import match
from annotator.prompts import load_prompt
from annotator.rank import rank
from annotator.report import report
from annotator.settings import load_settings
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
from annotator.taxonomy import Kind
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

    When the diagnosis says `not_data`, or no slice fails, no documents are labelled, matched or ranked: a data change
    would not mend the cause. With rules for a corpus that carries labels of its own, no documents are labelled at all.

    Args:
        out: folder for the artefacts, instead of the one in the settings.
        api_key, base_url: for LLM judges; the settings' own base_url goes first.

    Raises:
        BadInput: something is wrong with the settings, told before anything is written; or as the steps do.
        StoppedEarly, ServiceFailure: as the steps do; what is finished stays finished.
    """
    loop = _Loop(settings_path, out, cache_dir, api_key, base_url, progress or (lambda *_: None))
    write_probe(loop.out)
    loop.label("item")
    loop.diagnose()
    loop.slices()
    because = loop.why_no_documents()
    if because:
        loop.leave_out(because, "matches.parquet", "upsample.parquet", "export")
    else:
        loop.choose_documents()
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
    loop = _Loop(settings_path, None, cache_dir, api_key, base_url, lambda *_: None)
    forecast = {}
    for kind, judge in loop.judges.items():
        paths, columns = loop.inputs.source(kind)
        forecast[f"{kind}_labels"] = estimate(paths, judge=judge, cache_dir=cache_dir, columns=columns).as_dict()
    return forecast


class _Loop:
    """The state of one run: what the steps share. Nothing is written before the first step."""

    def __init__(
        self,
        settings_path: str | Path,
        out: str | Path | None,
        cache_dir: str | Path,
        api_key: str | None,
        base_url: str | None,
        progress: Progress,
    ) -> None:
        self.settings, base = load_settings(settings_path)
        self.out = Path(out) if out else base / self.settings.out
        self.cache_dir, self.progress = cache_dir, progress
        self.inputs = Inputs(self.settings, base, where=str(settings_path))
        self.inputs.check()
        self.judges = {kind: self._judge(kind, api_key, base_url) for kind in self.inputs.kinds}
        self.steps = Steps(self.out, self.inputs.taxonomy, progress)

    def _judge(self, kind: Kind, api_key: str | None, base_url: str | None) -> Judge | StudentJudge:
        judging, taxonomy = self.settings.judge, self.inputs.taxonomy
        with self.inputs.told_as(f"[judge] {kind}s"):
            return open_judge(
                self.inputs.judge_spec(kind),
                kind=kind,
                taxonomy=taxonomy,
                prompt=load_prompt(kind, taxonomy),
                base_url=judging.base_url or base_url,
                api_key=api_key,
                headers=account_headers(os.environ),
                pace=Pace(concurrency=judging.concurrency),
                below=judging.threshold(kind),
                cache_dir=self.cache_dir,
            )

    # ------------------------------------------------------------- the steps

    def label(self, kind: Kind) -> None:
        """Items or documents -> item_labels.parquet or document_labels.parquet."""
        judge, (paths, columns) = self.judges[kind], self.inputs.source(kind)
        name = f"{kind}_labels"

        def do(path: Path) -> Mapping[str, Any]:
            return label(
                paths,
                out=path,
                judge=judge,
                cache_dir=self.cache_dir,
                budget=Budget(max_cost_usd=self.settings.judge.max_cost),
                columns=columns,
                progress=lambda now: self.progress(name, "working", now),
            ).as_dict()

        # What was answered is in the cache, so only failed rows are asked for again; a student would say the same.
        failed = not isinstance(judge, StudentJudge) and bool(self.steps.summary_before(name).get("failed"))
        identity = [judge.name, judge.identity, *self.inputs.identities(f"{kind}s")]
        self.steps.do(name, f"{name}.parquet", identity, do, again=failed)

    def why_no_documents(self) -> str:
        """The reason to stop before the corpus is looked at; empty if there is none."""
        if self.steps.summaries["diagnosis"]["verdict"] == "not_data":
            return "the diagnosis says that data is not the cause"
        return "" if self.steps.summaries["slices"]["slices"] else "no slice fails"

    def leave_out(self, because: str, *artefacts: str) -> None:
        """Skip the steps that make these artefacts."""
        for artefact in artefacts:
            if artefact == "export":
                _clear_exports(self.out / artefact)
            self.steps.skip(artefact.removesuffix(".parquet"), artefact, because)

    def choose_documents(self) -> None:
        """Slices and corpus -> matches, ranked list, trainer files."""
        if "document" in self.judges:
            self.label("document")
        else:
            self.leave_out("the corpus carries labels of its own", "document_labels.parquet")
        self.match()
        self.rank()
        if self.steps.summaries["upsample"]["chosen"]:
            self.export()
        else:
            self.leave_out("no document was chosen", "export")

    def diagnose(self) -> None:
        """Raw outputs -> diagnosis.json."""

        def do(path: Path) -> Mapping[str, Any]:
            settings = self.settings
            found = diagnose(
                self.inputs.items(),
                self.inputs.outputs("samples"),
                reference=self.inputs.outputs("reference"),
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
                self.inputs.items(),
                self._labels("item"),
                self.inputs.run("samples"),
                reference=self.inputs.run("reference"),
                **options,
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
                rules=self.inputs.rules,
                taxonomy=self.inputs.taxonomy,
                documents=self.inputs.documents(),
                item_labels=self._labels("item"),
            )
            write_table(found.table, path, made_from=self._made_from(inputs=found.summary["inputs"]))
            return found.summary

        inputs = [self.inputs.rules.fingerprint, *self.inputs.identities("documents")]
        tables = [self.steps.artefacts["slices"], *self._label_tables()]
        self.steps.do("matches", "matches.parquet", [*inputs, *tables], do)

    def rank(self) -> None:
        """Matches and documents -> upsample.parquet and the table of what was dropped, beside it."""
        options = self.settings.rank.model_dump()
        documents, columns = self.inputs.source("document")

        def do(path: Path) -> Mapping[str, Any]:
            with self.inputs.told_as("[rank]"):
                ranking = rank(
                    self._table("matches", MATCHES),
                    self._labels("document"),
                    documents,
                    self.inputs.items(),
                    rules=self.inputs.rules,
                    slices=self._table("slices", SLICES),
                    columns=columns,
                    **options,
                )
            made_from = self._made_from(rank=options, inputs=ranking.summary["inputs"])
            write_table(ranking.chosen, path, made_from=made_from)
            write_table(ranking.dropped, beside(path, "dropped.parquet"), made_from=made_from)
            return ranking.summary

        inputs = [options, self.inputs.rules.fingerprint, *self.inputs.identities("documents", "items")]
        tables = [self.steps.artefacts["matches"], *self._label_tables()]
        self.steps.do("upsample", "upsample.parquet", [*inputs, *tables], do)

    def export(self) -> None:
        """upsample.parquet -> trainer files under export/."""
        formats = self.settings.export.formats
        documents, columns = self.inputs.source("document")

        def do(folder: Path) -> Mapping[str, Any]:
            _clear_exports(folder)
            upsample, made_from = self._table("upsample", UPSAMPLE), self._made_from()
            return {
                name: export(
                    upsample,
                    folder / EXPORT_FILES[name],
                    format=name,
                    made_from=made_from,
                    **({} if name in FILES else {"documents": documents, "columns": columns}),
                )
                for name in formats
            }

        inputs = [formats, self.steps.artefacts["upsample"]]
        if not set(formats) <= set(FILES):
            inputs += self.inputs.identities("documents")
        self.steps.do("export", "export", inputs, do)

    def verify(self) -> None:
        """Outputs before and after the change -> verification.json, where the settings name an `after`."""
        after = self.settings.after
        if not after or not self.steps.summaries["slices"]["slices"]:
            because = "no slice fails" if after else "the settings name no outputs after the change"
            self.steps.skip("verification", "verification.json", because)
            return

        def do(path: Path) -> Mapping[str, Any]:
            found = verify(
                self.inputs.items(),
                self._labels("item"),
                self.inputs.run("samples"),
                self.inputs.run("after") if after.run else self.inputs.outputs("after"),
                self._table("slices", SLICES),
                metric=self.settings.slices.metric,
            )
            write_json(path, found)
            return {name: found[name] for name in ("verdict",) if name in found}

        inputs = [self.steps.artefacts["slices"], *self._evaluation(), *self.inputs.identities("after")]
        self.steps.do("verification", "verification.json", inputs, do)

    def report(self) -> None:
        """All artefacts -> report.html."""
        made = [path for name, path in self.steps.artefacts.items() if path.is_file()]
        self.steps.do("report", "report.html", made, lambda path: self._write_report(path))

    def _write_report(self, path: Path) -> Mapping[str, Any]:
        documents, columns = self.inputs.source("document")
        write_text(path, report(self.out, documents=documents, columns=columns))
        return {}

    # ------------------------------------------------- what the steps read

    def _evaluation(self) -> list[Any]:
        """What diagnosis, slices and verification all depend on."""
        return [*self.inputs.identities("items", "samples", "reference"), self.steps.artefacts["item_labels"]]

    def _labels(self, kind: Kind) -> pl.DataFrame | None:
        """None where the corpus carries labels of its own."""
        return self._table(f"{kind}_labels", LABELS) if kind in self.judges else None

    def _label_tables(self) -> list[Path]:
        return [self.steps.artefacts[f"{kind}_labels"] for kind in self.judges]

    def _table(self, step: str, columns: Mapping[str, Any]) -> pl.DataFrame:
        return read_table(self.steps.artefacts[step], columns, made_by="annotator run")

    def _made_from(self, **parameters: Any) -> dict[str, Any]:
        """Fingerprints for table metadata; of content only, so that the same inputs give the same bytes anywhere."""
        return {
            "annotator": version("annotator"),
            "taxonomy": self.inputs.taxonomy.fingerprint,
            "taxonomy_version": self.inputs.taxonomy.version,
            "rules": self.inputs.rules.fingerprint,
            **({} if self.inputs.rules.needs_labels else {"own_labels": True}),
            **parameters,
        }


def _clear_exports(folder: Path) -> None:
    """Takes away what an earlier run exported, in formats that are not asked for any more too; nothing else."""
    for name in EXPORT_FILES.values():
        remove(folder / name)

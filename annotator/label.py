"""`label`: records in, labels out. Streams its input, asks only for what is not known, and can be stopped anywhere."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from annotator.budget import Budget, price_of
from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.judges import Judge, StudentJudge
from annotator.judges.cascade import CascadeJudge
from annotator.labelling.asking import Asking
from annotator.labelling.cascading import division_note, settle_sure
from annotator.labelling.chunking import asked_window, check_chunks
from annotator.labelling.estimate import Estimate, estimate
from annotator.labelling.parts import Part, Parts, failed_path_of
from annotator.labelling.predicting import Plan, abstention_note, ids_of, predict_in_processes, predict_shard
from annotator.labelling.retry import failed_ids, take_places
from annotator.labelling.rows import (
    SCHEMA,
    Labelled,
    Maker,
    Window,
    content_digest,
    dead_letters,
    labels_frame,
    only_records,
)
from annotator.labelling.tally import LabelSummary, Progress, ShardCounts, Tally, progress_of, resume
from annotator.readers import SeenIds, Shard, read_records
from annotator.readers.compressed import chunks
from annotator.readers.recognise import PARQUET_FAULTS
from annotator.readers.tables import filled_shards
from annotator.resources import resource

__all__ = ["Estimate", "LabelSummary", "Progress", "estimate", "label"]

_ASKED_ROWS = 1024
_COUNTED_BYTES = 1 << 28
_ROW_FORM = 1  # part of the identity of finished parts: changes when the columns of the label table do


def label(
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    judge: Judge | StudentJudge,
    cache_dir: str | Path | None = "cache",
    budget: Budget | None = None,
    columns: Mapping[str, str] = {},
    processes: int = 1,
    max_input_tokens: int | None = None,
    chunks: int | None = None,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> LabelSummary:
    """Label the records of some files, folders or globs.

    Args:
        inputs: items or documents, as `judge.kind` says.
        out: a table (.parquet, .jsonl, .jsonl.gz, .jsonl.zst, .csv), or a folder for one table an input shard. Beside
            it come `<out>.failed.jsonl` if records failed, and `<out>.parts/` while the run is not finished.
        judge: from `open_judge`.
        cache_dir: where paid answers are kept; None = nowhere. Students need none.
        budget: when to stop.
        columns: canonical column name -> the input's own name.
        processes: for students, how many shards are labelled at once.
        max_input_tokens: longer records are cut to head, middle and tail (see `excerpt`) and marked `truncated`.
        chunks: longer records are asked about in at most so many chunks of `max_input_tokens` instead, which are merged
            (see `merge_chunks`); `truncated` then means that even they do not hold all of it.
        retry_failed: take up exactly the failed rows of an existing `out`; for a folder, the shards that have some, by
            the judge that labelled them.
        progress: called a few times a second.

    Returns:
        A summary; each record that was read is in the table, with status "ok" or "failed" (rows without an id are in
        the dead-letter file only).

    Raises:
        BadInput: the input or the output cannot be used.
        StoppedEarly: a budget or the deadline; the same call goes on from there.
        ServiceFailure: the judge cannot be used.
    """
    out, shards = _named(out), filled_shards(inputs)
    run = _Run(judge, out, budget or Budget(), columns, max_input_tokens, chunks, progress)
    if not retry_failed:
        return run.label(shards, cache_dir, processes)
    if out.is_dir():
        run.redo_failed = True
        return run.label(shards, cache_dir, processes)
    run.only = failed_ids(out, judge.taxonomy)
    again = out.with_name(f"{out.name}.retry.parquet")
    run.out = again
    summary = run.label(shards, cache_dir, processes)
    take_places(again, out)
    again.unlink()
    failed_path = failed_path_of(out)
    return replace(summary, out=str(out), failed_path=str(failed_path) if failed_path.exists() else None)


def _named(out: str | Path) -> Path:
    """The output as a path; its name is needed for what lies beside it."""
    path = Path(out)
    if str(out) == "-":
        raise BadInput("labels need a file name", where="--out -", remedy="Write -o labels.jsonl, say.")
    if path.name in ("", ".."):
        remedy = "Write -o labels.parquet, or name a folder."
        raise BadInput("labels need the name of a file or a folder", where=f"--out {str(out)!r}", remedy=remedy)
    return path


class _Run:
    """One call of `label`."""

    def __init__(
        self,
        judge: Judge | StudentJudge,
        out: Path,
        budget: Budget,
        columns: Mapping[str, str],
        max_input_tokens: int | None,
        chunks: int | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        check_chunks(chunks, max_input_tokens, judge)
        self.judge, self.out, self.budget, self.columns, self.progress = judge, out, budget, columns, progress
        self.max_input_tokens, self.chunks = max_input_tokens, chunks
        self.identity = fingerprint(judge.identity)
        prompt = None if isinstance(judge, StudentJudge) else judge.prompt
        self.price = None if isinstance(judge, StudentJudge) else price_of(judge.model)
        if self.price is None and budget.max_cost_usd is not None and prompt is not None:
            remedy = f"Add it to {resource('schemas', 'prices.toml')}, or use --max-tokens."
            raise BadInput(f"no price is known for {judge.name}", where="--max-cost", remedy=remedy)
        labeller = judge.asked if isinstance(judge, CascadeJudge) else judge
        # Answers are kept under the identity of the judge that gave them: they serve a run without its cascade too.
        self.request_identity = fingerprint(labeller.identity)
        self.maker = Maker(judge.kind, labeller.name, judge.taxonomy.version, prompt.version if prompt else None)
        self.made_from = {
            "annotator": importlib.metadata.version("annotator"),
            "step": "label",
            "kind": judge.kind,
            "judge": judge.name,
            "judge_fingerprint": self.identity,
            "taxonomy": judge.taxonomy.fingerprint,
            "prompt": prompt.fingerprint if prompt else None,
            "max_input_tokens": max_input_tokens,
            **({"chunks": chunks} if chunks else {}),
            **({"below": judge.below} if isinstance(judge, StudentJudge) and judge.below is not None else {}),
        }
        self.only: frozenset[str] | None = None
        self.redo_failed = False
        self.tally = Tally()
        self.total: int | None = None
        self.open_parts: dict[str, tuple[Part, ShardCounts]] = {}

    def label(self, shards: list[Shard], cache_dir: str | Path | None, processes: int) -> LabelSummary:
        threading.Thread(target=self._count_total, args=(shards,), daemon=True).start()
        only = None if self.only is None else sorted(self.only)
        parts = Parts(self.out, fingerprint([_ROW_FORM, self.made_from, dict(self.columns), only]))
        try:
            every = [Part(parts.layout, shard) for shard in shards]
            _one_table_each(every)
            todo, finished = [], []
            for part in every:
                counts = part.finished()
                if self.redo_failed and counts is None and part.table.exists():
                    what = "was labelled by another judge, with other options or from other records"
                    remedy = "Let the same judge try again, or label anew with a cascade; one table may change judges."
                    raise BadInput(what, where=str(part.table), remedy=remedy)
                if counts is None or (self.redo_failed and counts["failed"]):
                    todo.append(part)
                else:
                    finished.append(part)
                    resume(self.tally, counts)
            seen = ids_of(finished)
            if isinstance(self.judge, StudentJudge):
                self._predict(self.judge, parts, [part.shard for part in todo], processes, seen)
                if processes > 1:
                    ids_of(every)
            else:
                self._ask(self.judge, todo, cache_dir, seen)
            failed_path = parts.publish(every, self.made_from | {"inputs": _inputs_digest(every)})
        finally:
            parts.close()
        return self._summary(len(shards), len(shards) - len(todo), failed_path)

    def _ask(self, judge: Judge, todo: Sequence[Part], cache_dir: str | Path | None, seen: SeenIds) -> None:
        from annotator.judges.cache import AnswerCache

        cache = None if cache_dir is None else AnswerCache(cache_dir)
        asking = Asking(
            judge,
            cache=cache,
            budget=self.budget,
            price=self.price,
            tally=self.tally,
            finish=self._finish,
            progress=self._show,
        )
        try:
            asking.run(self._windows(judge, todo, seen))
            if isinstance(judge, CascadeJudge):
                self.tally.notes.append(division_note(self.tally, judge))
        finally:
            if cache is not None:
                self.tally.notes += cache.notes
                if cache.rejected:
                    self.tally.notes.append(f"{cache.rejected} damaged or foreign rows of the cache were passed over.")
                cache.close()

    def _windows(self, judge: Judge, todo: Sequence[Part], seen: SeenIds) -> Iterator[Window]:
        for part in todo:
            self.open_parts[part.shard.name] = part, ShardCounts()
            part.begin()
            pieces = 0
            for batch in read_records(
                part.shard, kind=judge.kind, columns=self.columns, batch_rows=_ASKED_ROWS, seen=seen
            ):
                window = asked_window(
                    part.shard,
                    pieces,
                    only_records(batch, self.only),
                    self.request_identity,
                    message=judge.prompt.user,
                    max_input_tokens=self.max_input_tokens,
                    chunks=self.chunks,
                )
                if isinstance(judge, CascadeJudge):
                    settle_sure(window, judge)
                yield window
                pieces += 1
            part.expect(pieces)
            self._close_if_complete(part)

    def _finish(self, window: Window) -> None:
        part, counts = self.open_parts[window.shard.name]
        window = window.records or window
        for outcome in window.outcomes:
            if isinstance(outcome, Labelled):
                counts.labelled += 1
                counts.models[outcome.answer.model] += 1
            elif outcome is not None:
                counts.failed += 1
                counts.failures[outcome.reason] += 1
        for bad in window.bad:
            counts.failed += 1
            counts.failures[bad.reason] += 1
        self._count(0, Counter(bad.reason for bad in window.bad))
        counts.digest += content_digest(window)
        part.add_piece(window.index, labels_frame(window, self.maker), dead_letters(window, self.maker))
        self._close_if_complete(part)

    def _close_if_complete(self, part: Part) -> None:
        if part.is_complete():
            _, counts = self.open_parts.pop(part.shard.name)
            part.finish(pl.DataFrame(schema=SCHEMA), self.made_from, counts.as_json())

    def _predict(self, judge: StudentJudge, parts: Parts, todo: Sequence[Shard], processes: int, seen: SeenIds) -> None:
        plan = Plan(
            parts.layout, self.identity, self.columns, self.max_input_tokens, self.only, self.maker, self.made_from
        )
        before = self.tally.labelled
        if processes > 1 and len(todo) > 1:
            predict_in_processes(judge, todo, plan, processes=processes, count=self._count)
        else:
            for shard in todo:
                predict_shard(judge, shard, plan, count=self._count, seen=seen)
        self.tally.models[judge.name] += self.tally.labelled - before
        if self.tally.failures["unsure"]:
            self.tally.notes.append(abstention_note(self.tally, judge, is_folder=parts.layout.is_folder))

    def _count(self, labelled: int, failures: Counter[str]) -> None:
        failed = failures.total()
        self.tally.records += labelled + failed
        self.tally.labelled += labelled
        self.tally.failed += failed
        self.tally.failures += failures
        self._show(0)

    def _show(self, in_flight: int) -> None:
        if self.progress is not None:
            self.progress(progress_of(self.tally, self.price, total=self.total, in_flight=in_flight))

    def _count_total(self, shards: Sequence[Shard]) -> None:
        try:
            self.total = row_count(shards)
        except (BadInput, *PARQUET_FAULTS):
            pass  # no total for the progress bar; the reader says what is wrong with the file

    def _summary(self, shards: int, resumed: int, failed_path: Path | None) -> LabelSummary:
        tally, usage = self.tally, self.tally.usage
        return LabelSummary(
            records=tally.records,
            labelled=tally.labelled,
            failed=tally.failed,
            cached=tally.cached,
            requests=usage.requests,
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=None if self.price is None else self.price.cost(usage),
            failures=dict(sorted(tally.failures.items())),
            models=dict(sorted(tally.models.items())),
            shards=shards,
            shards_resumed=resumed,
            seconds=time.monotonic() - tally.started,
            judge=self.judge.name,
            out=str(self.out),
            failed_path=None if failed_path is None else str(failed_path),
            notes=tuple(tally.notes),
        )


def _inputs_digest(parts: Sequence[Part]) -> str:
    total = sum(int((part.finished() or {})["digest"], 16) for part in parts)
    return f"{total % (1 << 256):064x}"


def _one_table_each(parts: Sequence[Part]) -> None:
    """Raise BadInput if two shards would be written to one table of an output folder."""
    shards: dict[Path, Shard] = {}
    for part in parts:
        other = shards.setdefault(part.table, part.shard)
        if other is not part.shard:
            what = f"its labels would have the same name as those of {other.name}"
            raise BadInput(what, where=part.shard.name, remedy="Rename one of the shards, or write one table.")


def row_count(shards: Sequence[Shard]) -> int | None:
    """About how many records there are, for a progress bar; None when counting would take long."""
    rows = 0
    for shard in shards:
        if shard.format == "parquet":
            rows += pl.scan_parquet(shard.path, glob=False).select(pl.len()).collect().item()
        elif shard.format in ("jsonl", "csv", "lm_eval") and shard.path.stat().st_size < _COUNTED_BYTES:
            rows += sum(piece.count(b"\n") for piece in chunks(shard.path))
        else:
            return None
    return rows

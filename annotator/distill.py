"""Train a student judge on labels: regularised linear heads, probabilities calibrated on held-out folds."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import scipy.sparse as sp

from annotator.distillation.calibration import abstention_curve, fit_calibrations, fit_set_threshold, pooled_confidence
from annotator.distillation.curve import SHARES, learning_curve
from annotator.distillation.heads import (
    PENALTY,
    Lesson,
    fit_examples,
    fit_heads,
    held_out_scores,
    random_folds,
    reduced,
    score,
    source_folds,
)
from annotator.errors import BadInput
from annotator.judges import design, encoder, features, student
from annotator.readers import find_shards, item_text, read_records
from annotator.resources import resource
from annotator.tables import write_json, write_whole
from annotator.taxonomy import AXES, GRADES, KINDS, Kind, Taxonomy

MIN_RECORDS = 20
ALL_ANSWERS = "all answers"  # in the scores of a card: the calibration of all answers together
# Of a written example against a label; on whole sources held out 1, 3 and 5 were tried with 415 of them.
_EXAMPLE_WEIGHT = 2.0
_MIN_TEXTS = {"item": 3, "document": 6}  # a hash must occur in so many training texts; fewer lost .01 to .04 of kappa


def distill(
    labels: pl.DataFrame,
    texts: pl.DataFrame,
    *,
    taxonomy: Taxonomy,
    out: Path,
    data: str,
    examples: pl.DataFrame | None = None,
    accurate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a student on labels and write its folder.

    Args:
        labels: a label table (record_id, kind, the axes, exercise, quality); only rows of status "ok" are read.
        texts: record_id, text (items as rendered by `features.item_text`), source (benchmark or corpus source: folds
            that hold out whole sources tell how the student does on unseen ones).
        out: the folder to write; card.json and weights.npz in it are replaced.
        data: one sentence for the card on where the labels come from.
        accurate: the student also sees the embeddings of `annotator.judges.encoder` (extra `accurate`): better on
            unseen sources, and about a hundred times slower.
        examples: labelled texts in the columns of `written_examples()` to learn from beside the labels, for values and
            forms that the labels lack; never scored. Those with values that this taxonomy lacks are left out.
        progress: called with the fits done and to do.

    Returns:
        The card. `scores` has, per side and axis, kappa, macro_f1 and ece, cross-validated twice: "seen_sources"
        (random folds) and "unseen_sources" (whole sources held out), and the ece of ALL_ANSWERS together; `abstention`
        says what a threshold leaves unlabelled and buys (see `abstention_curve`), `learning_curve` what more labels
        would buy (see `learning_curve`). Same inputs, same bytes, in any row order; with another number of BLAS threads
        a weight may differ by a step.

    Raises:
        BadInput: a side with labels but fewer than 20, a record with two labels or two texts, a label without text, or
            `accurate` without its extra.
    """
    sides, arrays, sizes, measured = {}, {}, {}, {"scores": {}, "abstention": {}, "learning_curve": {}}
    texts, done = _one_text_each(texts), count(1)
    lessons = {
        kind: lesson
        for kind in KINDS
        if (lesson := _lesson(labels, texts, taxonomy, kind, examples, accurate=accurate)) is not None
    }
    fits = sum(map(_fits, lessons.values()))
    for kind, plain in lessons.items():
        lesson = replace(plain, fitted=lambda: progress(next(done), fits)) if progress else plain
        sides[kind], made, found = _train(lesson)
        for name, figures in found.items():
            measured[name][kind] = figures
        arrays |= {f"{kind}.{name}": array for name, array in made.items()}
        written = lesson.batch.texts - lesson.labelled
        sizes[kind] = {"records": lesson.labelled, "written_examples": written, "hashes": len(made["hash"])}
    if not sides:
        raise BadInput("there are no labels to learn from", remedy="Label some records first.")
    card = {
        "format": student.CARD_FORMAT,
        "features": features.FEATURES_VERSION,
        "words": design.words_digest(),
        "encoder": encoder.encoder_digest() if accurate else None,
        "taxonomy_version": taxonomy.version,
        "taxonomy": taxonomy.fingerprint,
        "data": data,
        "sizes": sizes,
        "sides": sides,
        **measured,
        "created_with": {"python": ".".join(map(str, sys.version_info[:2])), "numpy": np.__version__},
    }
    return write_student(out, card, arrays)


def write_student(out: Path, card: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write weights.npz, then card.json with its digest in `weights`, and return the card; no time stamp anywhere."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    raw = packed.getvalue()
    write_whole(out / "weights.npz", lambda temporary: temporary.write_bytes(raw))
    card = card | {"weights": hashlib.sha256(raw).hexdigest()}
    write_json(out / "card.json", card)
    return card


def measure_speed(folder: Path, labels: pl.DataFrame, texts: pl.DataFrame) -> dict[str, Any]:
    """Write into a student's card how fast it is; apart from `distill`, whose bytes are the same each time.

    Args:
        labels, texts: what it learnt from; 1,000 texts of a side are labelled, or 20 where it sees embeddings.

    Returns:
        The card. `speed` has, per side, texts_per_cpu_second (one thread, start-up left out) and characters (the mean
        length of these texts).
    """
    trained = student.Student.load(folder)
    card = orjson.loads((folder / "card.json").read_bytes())
    card["speed"] = {}
    for kind in card["sides"]:
        rows = texts.join(labels.filter(pl.col("kind") == kind), on="record_id", how="semi").sort("record_id")
        some = rows["text"].head(20 if card["encoder"] else 1000).to_list()
        trained.predict(some[:20], kind)
        began = time.process_time()
        trained.predict(some, kind)
        per_second = len(some) / max(time.process_time() - began, 1e-6)
        characters = round(sum(map(len, some)) / len(some))
        card["speed"][kind] = {"texts_per_cpu_second": round(per_second), "characters": characters}
    write_json(folder / "card.json", card)
    return card


def texts_of(labels: pl.DataFrame, inputs: Sequence[str | Path], *, columns: Mapping[str, str] = {}) -> pl.DataFrame:
    """The texts of labelled records, found in the records themselves: record_id, text, source.

    The source, which tells whole sources apart in cross-validation, is a document's own, or its shard's name; items are
    told apart by the first part of their id ("gsm8k" of "gsm8k/17").

    Raises:
        BadInput: no labelled record is there.
    """
    found = []
    for kind in labels["kind"].unique().sort().to_list():
        wanted = labels.filter(pl.col("kind") == kind)["record_id"]
        for shard in find_shards(inputs):
            own = pl.col("record_id").str.split("/").list.first() if kind == "item" else pl.lit(shard.name)
            source = pl.coalesce("source", own) if kind == "document" else own
            for batch in read_records(shard, kind=kind, columns=columns):
                rows = batch.frame.filter(pl.col("record_id").is_in(wanted.implode()))
                found.append(rows.select("record_id", "text", source.alias("source")))
    texts = pl.concat(found) if found else pl.DataFrame(schema={"record_id": pl.String})
    if texts.is_empty():
        remedy = "Give with --text the records that were labelled."
        raise BadInput("none of the labelled records is there", where=", ".join(map(str, inputs)), remedy=remedy)
    return _one_text_each(texts)


def _one_text_each(texts: pl.DataFrame) -> pl.DataFrame:
    """The table without repetitions of a record, as when a file is given twice; two texts for one id are a mistake."""
    distinct = texts.unique(["record_id", "text"], keep="first", maintain_order=True)
    twice = distinct.filter(pl.col("record_id").is_duplicated())
    if len(twice):
        remedy = "Give each record once, as it was labelled."
        raise BadInput(f"two texts for record {twice['record_id'].min()!r}", where="--text", remedy=remedy)
    return distinct


def written_examples() -> pl.DataFrame:
    """The labelled examples of `examples/codebook`: record_id, kind, the axes, exercise, quality, text.

    A language model wrote them for this project, to show each value of the codebook in several forms; none is copied.
    """
    return pl.concat([_examples_of(path) for path in sorted(resource("examples", "codebook").glob("*.jsonl"))])


def _examples_of(path: Path) -> pl.DataFrame:
    """One file: items with prompt, choices and target, or documents with text, or both with kind and text."""
    frame = pl.read_ndjson(path, infer_schema_length=None)
    if "kind" not in frame.columns:
        frame = frame.with_columns(kind=pl.lit("item" if "prompt" in frame.columns else "document"))
    if "text" not in frame.columns:
        choices = pl.col("choices") if "choices" in frame.columns else pl.lit(None)
        rows = frame.select("prompt", choices, "target").iter_rows()
        frame = frame.with_columns(text=pl.Series([item_text(*row) for row in rows]))
    missing = [pl.lit(None).alias(name) for name in GRADES if name not in frame.columns]
    columns = ["record_id", "kind", *AXES, *GRADES, "text"]
    return frame.with_columns(missing).select(columns).cast({"exercise": pl.String, "quality": pl.Int64})


def _fitting(examples: pl.DataFrame, taxonomy: Taxonomy, kind: Kind) -> pl.DataFrame:
    """The examples of one side whose values this taxonomy knows."""
    rows = examples.filter(pl.col("kind") == kind)
    for name in AXES:
        allowed = taxonomy.values(name, kind)
        known = pl.col(name).list.eval(pl.element().is_in(allowed)).list.all()
        rows = rows.filter(known if name == "solving_operation" else pl.col(name).is_in(allowed))
    if kind == "document":
        rows = rows.filter(pl.col(name).cast(pl.String).is_in(taxonomy.grade_values(name)) for name in GRADES)
    return rows.sort("record_id")


def _lesson(
    labels: pl.DataFrame,
    texts: pl.DataFrame,
    taxonomy: Taxonomy,
    kind: Kind,
    examples: pl.DataFrame | None,
    *,
    accurate: bool,
) -> Lesson | None:
    rows = labels.filter(pl.col("kind") == kind)
    if "status" in rows.columns:
        rows = rows.filter(pl.col("status") == "ok")
    if rows.is_empty():
        return None
    if len(rows) < MIN_RECORDS:
        remedy = f"Label at least {MIN_RECORDS} {kind}s, or leave them out."
        raise BadInput(f"only {len(rows)} labels of {kind}s to learn from", remedy=remedy)
    twice = rows.filter(pl.col("record_id").is_duplicated())
    if len(twice):
        remedy = "Keep one row a record."
        raise BadInput(f"two labels for {kind} {twice['record_id'].min()!r}", where="labels", remedy=remedy)
    rows = rows.join(texts.select("record_id", "text", "source"), on="record_id", how="left").sort("record_id")
    lost = rows.filter(pl.col("text").is_null())
    if len(lost):
        remedy = "Give the files that the labels were made from."
        raise BadInput(f"no text for record {lost['record_id'][0]!r} ({len(lost)} in all)", remedy=remedy)
    labelled = len(rows)
    if examples is not None:
        rows = pl.concat([rows, _fitting(examples, taxonomy, kind)], how="diagonal_relaxed")
    targets = {}
    for name in (*AXES, *(GRADES if kind == "document" else ())):
        allowed = taxonomy.values(name, kind) if name in AXES else taxonomy.grade_values(name)
        first = rows[name].list.first() if name == "solving_operation" else rows[name].cast(pl.String)
        targets[name] = _one_hot([[value] for value in first], allowed)
    operations = taxonomy.values("solving_operation", kind)
    targets[student.OPERATION_SET] = _one_hot(rows["solving_operation"].to_list(), operations)
    return Lesson(
        kind=kind,
        batch=features.extract(rows["text"].to_list(), kind),
        encoded=encoder.encode(rows["text"].to_list(), kind) if accurate else None,
        sources=rows["source"].fill_null("").to_numpy().astype(str),
        ids=rows["record_id"].to_numpy().astype(str),
        targets=targets,
        labelled=labelled,
        weight=np.where(np.arange(len(rows)) < labelled, 1.0, _EXAMPLE_WEIGHT),
        fitted=lambda: None,
    )


def _fits(lesson: Lesson) -> int:
    """How often `_train` fits the heads: for each fold of both kinds, for the learning curve, and twice for good."""
    folds = len(np.unique(random_folds(lesson.ids[: lesson.labelled])))
    sources = len(np.unique(source_folds(lesson.sources[: lesson.labelled])))
    return folds * len(SHARES) + sources + 1 + (lesson.batch.texts > lesson.labelled)


def _one_hot(lists: list[list[str]], allowed: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The allowed values that occur, in taxonomy order, and a 0/1 matrix; a value of no axis is the user's mistake."""
    seen = {value for values in lists for value in values}
    unknown = sorted(value for value in seen if value not in allowed)
    if unknown:
        raise BadInput(f"{unknown[0]!r} is not a value of this taxonomy", remedy="Migrate the labels to its version.")
    kept = tuple(value for value in allowed if value in seen)
    place = {value: column for column, value in enumerate(kept)}
    matrix = np.zeros((len(lists), len(kept)))
    for row, values in enumerate(lists):
        matrix[row, [place[value] for value in values]] = 1.0
    return kept, matrix


def _train(lesson: Lesson) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """One side: its part of the card, its arrays, and what was measured on held-out folds."""
    matrix, arrays = _design_matrix(lesson)
    rows = reduced((matrix @ matrix.T).toarray())
    examples = fit_examples(rows.texts, lesson)
    ids, sources = lesson.ids[: lesson.labelled], lesson.sources[: lesson.labelled]
    held_out = {
        "seen_sources": held_out_scores(rows.texts, lesson, random_folds(ids), examples),
        "unseen_sources": held_out_scores(rows.texts, lesson, source_folds(sources), examples),
    }
    calibrations = fit_calibrations(list(held_out.values()), lesson)
    fitted = fit_heads(rows.texts, lesson, np.arange(len(rows.texts)), start=examples)
    heads, start = [], 0
    for name, (values, _) in lesson.targets.items():
        calibration = calibrations.get(name, student.Calibration(1.0, 1.0, 0.0))
        heads.append({"name": name, "values": list(values), "start": start} | asdict(calibration))
        start += len(values)
    arrays |= _packed(np.hstack([matrix.T @ (rows.mixes @ weights) for weights, _ in fitted.values()]))
    arrays["bias"] = np.concatenate([bias for _, bias in fitted.values()]).astype(np.float32)
    threshold = fit_set_threshold(held_out["seen_sources"], lesson)
    measured = {
        "scores": {how: _scores(outcome, lesson, calibrations) for how, outcome in held_out.items()},
        "abstention": {how: abstention_curve(outcome, lesson, calibrations) for how, outcome in held_out.items()},
        "learning_curve": learning_curve(rows.texts, lesson, examples, held_out["seen_sources"]),
    }
    return {"heads": heads, "set_threshold": threshold, "penalty": PENALTY}, arrays, measured


def _design_matrix(lesson: Lesson) -> tuple[sp.csr_array, dict[str, np.ndarray]]:
    """Texts x features, and the arrays that a student needs to make the same rows of other texts."""
    hashes, idf = _vocabulary(lesson)
    centre = design.meaning(lesson.batch).mean(axis=0, dtype=np.float64).astype(np.float32)
    arrays = {"hash": hashes.astype(np.uint32), "idf": idf.astype(np.float32), "centre": centre}
    words, shapes, means = design.blocks(lesson.batch, design.slots(hashes), idf, centre)
    blocks = [words, shapes @ design.up_to_highest(), means]
    if lesson.encoded is not None:
        arrays["encoded_centre"] = lesson.encoded.mean(axis=0, dtype=np.float64).astype(np.float32)
        blocks.append(design.embedding_block(lesson.encoded, arrays["encoded_centre"]))
    return sp.hstack(blocks, "csr").astype(np.float64), arrays


def _packed(weights: np.ndarray) -> dict[str, np.ndarray]:
    """The weights in a byte each, with a scale for each column."""
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127.0
    return {"weights": np.round(weights / scale).astype(np.int8), "scale": scale.astype(np.float32)}


def _scores(
    outcome: dict[str, np.ndarray], lesson: Lesson, calibrations: dict[str, student.Calibration]
) -> dict[str, dict[str, float]]:
    """The agreement of held-out scores with the labels, by head, and the calibration of all heads together."""
    wanted = {name: lesson.targets[name][1][: lesson.labelled] for name in calibrations}
    scores = {name: score(outcome[name], wanted[name], each) for name, each in calibrations.items()}
    return scores | {ALL_ANSWERS: pooled_confidence(outcome, lesson, calibrations)}


def _vocabulary(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """The hashes that occur in enough texts, sorted, and ln((1 + texts) / (1 + texts with it)) + 1 for each."""
    batch = lesson.batch
    occurring = np.unique(batch.gram_text.astype(np.int64) << features.HASH_BITS | batch.gram_hash)
    hashes, texts_with = np.unique(occurring & ((1 << features.HASH_BITS) - 1), return_counts=True)
    enough = texts_with >= _MIN_TEXTS[lesson.kind]
    idf = np.log((1.0 + lesson.batch.texts) / (1.0 + texts_with[enough])) + 1.0
    return hashes[enough], idf.astype(np.float32).astype(np.float64)

"""A student judge: linear heads over hashed features, in a folder of plain arrays and one JSON card.

A fast student sees words, the shape of the text and the mean vector of its words; an accurate one also the embeddings
of `annotator.judges.encoder`, about a hundred times slower.

student/
  card.json     taxonomy version, data, encoder or null, heads with their values and calibration, measured scores, and
                the SHA-256 of the weights, so that no card is read beside another's
  weights.npz   per side: `hash`, `idf`, `weights` (int8), `scale`, `bias`; arrays only, never pickled objects
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl
import scipy.special

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.judges import encoder, features
from annotator.judges.best_lines import best_lines, quotes
from annotator.judges.design import (
    SHAPE_COLUMNS,
    blocks,
    embedding_block,
    slots,
    up_to_highest,
    word_vectors,
    words_digest,
)
from annotator.taxonomy import AXES, MAX_OPERATIONS

Kind = Literal["item", "document"]
CARD_FORMAT = 3
OPERATION_SET = "operation_set"  # the head that says which operations belong to the set, primary or not

_BATCH = 512  # texts at a time: bounds memory, and changes no result
_MEANINGFUL = ("format", "features", "words", "encoder", "taxonomy_version", "sides")
_SHIPPED = {"embedded": "embedded", "embedded:accurate": "embedded_accurate"}


def embedded_path(spec: str = "embedded") -> Path:
    """The folder of a student that ships with the package: "embedded", the fast one, or "embedded:accurate".

    Raises:
        BadInput: no such student ships.
    """
    if spec not in _SHIPPED:
        raise BadInput(f"{spec!r} names no embedded student", remedy=f"Use {' or '.join(_SHIPPED)}.")
    return Path(__file__).parent / _SHIPPED[spec]


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the scores of a head's values to the probability that the highest of them is right.

    The scores are divided by `temperature` (Guo et al. 2017, ICML); then the log odds of the likeliest value are
    stretched by `slope` and moved by `offset` (Platt 1999).
    """

    temperature: float
    slope: float
    offset: float

    def sure(self, scores: np.ndarray) -> np.ndarray:
        """Texts x values to the probability of each text's highest."""
        highest = softmax(scores / self.temperature).max(axis=1, initial=0.0)
        return scipy.special.expit(self.slope * log_odds(highest) + self.offset)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)), with p kept a ten-thousandth away from 0 and 1."""
    return scipy.special.logit(np.clip(probability, 1e-4, 1.0 - 1e-4))


@dataclass(frozen=True, slots=True)
class Head:
    """Columns `start : start + len(values)` of a side's weights score these values of one axis."""

    name: str
    values: tuple[str, ...]
    start: int
    calibration: Calibration

    def columns(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, self.start : self.start + len(self.values)]


@dataclass(frozen=True, slots=True)
class Side:
    """What labels one kind of text: the features it knows, and its heads."""

    slot_of_hash: np.ndarray
    known: np.ndarray  # whether each possible hash has a slot
    idf: np.ndarray
    centre: np.ndarray
    weights: np.ndarray
    speaks_for: np.ndarray  # operations x known hashes: how much a word speaks for an operation
    bias: np.ndarray
    heads: dict[str, Head]
    set_threshold: float
    encoded_centre: np.ndarray | None  # of an accurate student only

    def scores(self, batch: features.Batch, encoded: np.ndarray | None) -> np.ndarray:
        """Texts x columns of the heads, rounded.

        Sparse times dense adds the columns in ascending order, so a text scores the same in any batch; rounding hides
        the last bits, in which machines differ.
        """
        found = blocks(batch, self.slot_of_hash, self.idf, self.centre)
        if encoded is not None:
            found.append(embedding_block(encoded, self.encoded_centre))
        ends = np.cumsum([block.shape[1] for block in found])[:-1]
        parts = zip(found, np.split(self.weights, ends), strict=True)
        return np.round((sum(block @ weights for block, weights in parts) + self.bias).astype(np.float64), 4)


class Student:
    """A loaded student. `card` is its JSON card; `fingerprint` names weights and card for the provenance of labels."""

    def __init__(self, card: dict[str, Any], sides: dict[str, Side], digest: str) -> None:
        self.card = card
        self.fingerprint = digest
        self._sides = sides

    @classmethod
    def load(cls, path: Path) -> Student:
        """Read a student folder.

        Raises:
            BadInput: if the folder is missing, damaged, or made for other features. Nothing is ever unpickled.
        """
        remedy = "Give a folder written by `annotator distill`."
        try:
            card = orjson.loads((path / "card.json").read_bytes())
            raw = (path / "weights.npz").read_bytes()
        except OSError as error:
            what = f"not a student folder ({error.strerror or error})"
            raise BadInput(what, where=str(path), remedy=remedy) from None
        except orjson.JSONDecodeError as error:
            raise BadInput(f"damaged card ({error})", where=str(path / "card.json"), remedy=remedy) from None
        if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
            raise BadInput("the card is of another format", where=str(path / "card.json"), remedy="Distil again.")
        if card.get("features") != features.FEATURES_VERSION:
            what = f"made for features version {card.get('features')!r}, this is {features.FEATURES_VERSION!r}"
            raise BadInput(what, where=str(path / "card.json"), remedy="Distil again with this version.")
        if card.get("words") != words_digest():
            what = "made with other word vectors than this version has"
            raise BadInput(what, where=str(path / "card.json"), remedy="Distil again with this version.")
        if card.get("encoder") not in (None, encoder.encoder_digest()):
            what = "made with another encoder than this version has"
            raise BadInput(what, where=str(path / "card.json"), remedy="Distil again with this version.")
        if card.get("weights") != hashlib.sha256(raw).hexdigest():
            what = "not the weights that the card was written with"
            raise BadInput(what, where=str(path / "weights.npz"), remedy="Copy the folder again, or distil again.")
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                sides = {
                    kind: _side(card["sides"][kind], arrays, kind, encoded=bool(card.get("encoder")))
                    for kind in card["sides"]
                }
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
            raise BadInput(f"damaged student ({error})", where=str(path), remedy=remedy) from None
        meaning = {key: card.get(key) for key in _MEANINGFUL}
        return cls(card, sides, fingerprint([card["weights"], meaning]))

    def predict(self, texts: Sequence[str], kind: Kind) -> pl.DataFrame:
        """Label texts: items as rendered by `features.item_text`, documents raw.

        Returns:
            One row a text, in order: background_condition, task_type, solving_operation list[str] (1..3, most important
            first), output_constraint, exercise (documents, else null), quality i64 (documents, else null), evidence (a
            line of the text, at most 200 characters), confidence f64 (the least of the axes), and the calibrated
            probability of each axis' answer as confidence_<axis>.

        Raises:
            BadInput: if this student was trained on the other side only, or needs an encoder that is not installed.
        """
        if kind not in self._sides:
            raise BadInput(f"this student labels no {kind}s", remedy=f"Distil one from labels of {kind}s.")
        side = self._sides[kind]
        blocks = [_predict(side, texts[at : at + _BATCH], kind) for at in range(0, len(texts), _BATCH)]
        return pl.concat(blocks) if blocks else _predict(side, [], kind)


def _side(card: dict[str, Any], arrays: Any, kind: str, *, encoded: bool) -> Side:
    hashes = arrays[f"{kind}.hash"]
    weights, scale = arrays[f"{kind}.weights"], arrays[f"{kind}.scale"]
    heads = {}
    for raw in card["heads"]:
        calibration = Calibration(*(float(raw[name]) for name in ("temperature", "slope", "offset")))
        heads[raw["name"]] = Head(raw["name"], tuple(raw["values"]), int(raw["start"]), calibration)
    slot_of_hash, idf = slots(hashes), arrays[f"{kind}.idf"].astype(np.float64)
    real = np.multiply(weights, scale, dtype=np.float32)
    of_shape = slice(len(hashes), len(hashes) + SHAPE_COLUMNS)
    real[of_shape] = up_to_highest() @ real[of_shape]
    side = Side(
        slot_of_hash=slot_of_hash,
        known=slot_of_hash >= 0,
        idf=idf,
        centre=arrays[f"{kind}.centre"].astype(np.float32),
        weights=real,
        speaks_for=np.ascontiguousarray(heads["solving_operation"].columns(real)[: len(hashes)].T)
        * idf.astype(np.float32),
        bias=arrays[f"{kind}.bias"].astype(np.float32),
        heads=heads,
        set_threshold=float(card["set_threshold"]),
        encoded_centre=arrays[f"{kind}.encoded_centre"].astype(np.float32) if encoded else None,
    )
    columns = max(head.start + len(head.values) for head in heads.values())
    rows = len(hashes) + SHAPE_COLUMNS + word_vectors()[1].shape[1] + encoded * encoder.DIMENSIONS
    if side.weights.shape != (rows, columns) or side.bias.shape != (columns,):
        raise ValueError("the arrays do not fit the card")
    if len(side.idf) != len(hashes) or any(axis not in heads for axis in (*AXES, OPERATION_SET)):
        raise ValueError("the card lacks a head")
    return side


def _predict(side: Side, texts: Sequence[str], kind: Kind) -> pl.DataFrame:
    batch = features.extract(texts, kind, known=side.known)
    encoded = encoder.encode(texts, kind) if side.encoded_centre is not None else None
    scores = side.scores(batch, encoded)
    chosen, sure, columns = {}, {}, {}
    for name, head in side.heads.items():
        if name == OPERATION_SET:
            continue
        chosen[name] = head.columns(scores).argmax(axis=1)
        sure[name] = np.round(head.calibration.sure(head.columns(scores)), 4)
    if kind == "document":
        chosen["exercise"] = _agreeing_exercise(side, scores, chosen)
    for name in ("background_condition", "task_type"):
        columns[name] = _named(side.heads[name], chosen[name])
    columns["solving_operation"] = _listed(_operations(side, scores, chosen))
    columns["output_constraint"] = _named(side.heads["output_constraint"], chosen["output_constraint"])
    if kind == "document":
        columns["exercise"] = _named(side.heads["exercise"], chosen["exercise"])
        columns["quality"] = _named(side.heads["quality"], chosen["quality"]).cast(pl.Int64)
    else:
        columns["exercise"] = pl.Series([None] * batch.texts, dtype=pl.String)
        columns["quality"] = pl.Series([None] * batch.texts, dtype=pl.Int64)
    columns["evidence"] = pl.Series(_evidence(side, batch, chosen["solving_operation"]), dtype=pl.String)
    columns["confidence"] = pl.Series(np.min([sure[axis] for axis in AXES], axis=0))
    columns |= {f"confidence_{name}": pl.Series(values) for name, values in sure.items()}
    return pl.DataFrame(columns)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Row-wise probabilities."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    return raised / raised.sum(axis=1, keepdims=True)


def _named(head: Head, chosen: np.ndarray) -> pl.Series:
    return pl.Series(np.array(head.values, dtype=object)[chosen].tolist(), dtype=pl.String)


def _agreeing_exercise(side: Side, scores: np.ndarray, chosen: dict[str, np.ndarray]) -> np.ndarray:
    """The codebook binds the two: recall first means exercise none, any other first operation at least incidental."""
    head = side.heads["exercise"]
    if "none" not in head.values or len(head.values) == 1:
        return chosen["exercise"]
    none = head.values.index("none")
    carried_out = head.columns(scores).copy()
    carried_out[:, none] = -np.inf
    is_recall = np.array([value == "recall" for value in side.heads["solving_operation"].values])
    return np.where(is_recall[chosen["solving_operation"]], none, carried_out.argmax(axis=1))


def _listed(lists: Sequence[tuple[str, ...]]) -> pl.Series:
    """A column of lists, most of which are the same few: a list at a time is slow to make."""
    places = {each: at for at, each in enumerate(dict.fromkeys(lists))}
    return pl.Series(list(map(list, places)), dtype=pl.List(pl.String)).gather([places[each] for each in lists])


def _operations(side: Side, scores: np.ndarray, chosen: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    """The primary operation, then the likeliest others of the set head above its threshold."""
    head = side.heads[OPERATION_SET]
    primary = side.heads["solving_operation"].values
    likely = head.columns(scores)
    order = np.argsort(-likely, axis=1, kind="stable")[:, : MAX_OPERATIONS + 1]
    cut = np.log(side.set_threshold / (1.0 - side.set_threshold))
    lists = []
    for row, first in enumerate(chosen["solving_operation"]):
        names = [primary[first]]
        for column in order[row]:
            if likely[row, column] < cut or len(names) == MAX_OPERATIONS:
                break
            if head.values[column] != names[0]:
                names.append(head.values[column])
        lists.append(tuple(names))
    return lists


def _evidence(side: Side, batch: features.Batch, operation: np.ndarray) -> list[str]:
    """The line whose known words speak most for the primary operation; without one, the first that is not blank."""
    in_body = np.flatnonzero(batch.gram_line >= 0)
    text, line, hashes = (column.take(in_body) for column in (batch.gram_text, batch.gram_line, batch.gram_hash))
    place = operation.take(text) * side.speaks_for.shape[1] + side.slot_of_hash.take(hashes)
    weight = side.speaks_for.ravel().take(place)
    return quotes(batch.bodies, best_lines(text, line, weight, batch.texts))

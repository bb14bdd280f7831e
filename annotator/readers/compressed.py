"""Bytes of a file, decompressed as they are read: plain, gzip or zstd, told apart by their first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from annotator.errors import BadInput

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_READ_BYTES = 1 << 18
_PLAIN_BYTES = 1 << 22  # gzip text is handed on in pieces of this size, however well it was compressed
_ZSTD_BYTES = 1 << 14  # the zstd decoder cannot be held back, so it is fed little: 16 kB make 512 MB at the very worst


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a file in pieces of some hundred kilobytes to a few megabytes.

    Raises:
        BadInput: it cannot be opened or read, or its compression is damaged or cut short.
    """
    try:
        with path.open("rb") as opened:
            first = opened.read(_READ_BYTES)
            pieces = iter(lambda: opened.read(_READ_BYTES), b"")
            if first.startswith(_GZIP):
                yield from _inflate(path, first, pieces, lambda: zlib.decompressobj(wbits=31), _PLAIN_BYTES)
            elif first.startswith(_ZSTD):
                yield from _inflate(path, first, pieces, zstandard.ZstdDecompressor().decompressobj)
            else:
                yield first
                yield from pieces
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes of the content, or fewer; what can be read of a damaged file."""
    start = b""
    try:
        for piece in chunks(path):
            start += piece
            if len(start) >= size:
                break
    except BadInput:
        pass  # the damage is reported when the rows are read
    return start[:size]


def _inflate(
    path: Path, first: bytes, pieces: Iterator[bytes], new_decoder: Callable[[], Any], *limit: int
) -> Iterator[bytes]:
    """Decompress one or many frames set one after the other (as `cat a.gz b.gz` and parallel compressors make them)."""
    decoder, started = new_decoder(), False
    waiting = first
    remedy = "Copy or download the file again."
    try:
        while waiting:
            step = waiting if limit else waiting[:_ZSTD_BYTES]
            rest = waiting[len(step) :]
            started = True
            plain = decoder.decompress(step, *limit)
            if plain:
                yield plain
            if decoder.eof:
                left = decoder.unused_data
                decoder, started = new_decoder(), False
            else:
                left = decoder.unconsumed_tail if limit else b""
            waiting = left + rest or next(pieces, b"")
            if not started:
                waiting = waiting.lstrip(b"\0")  # zero padding may follow the last gzip member
    except (zlib.error, zstandard.ZstdError) as error:
        raise BadInput(f"the compressed data is damaged ({error})", where=str(path), remedy=remedy) from None
    if started:
        raise BadInput("the compressed file is cut short", where=str(path), remedy=remedy)

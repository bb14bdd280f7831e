"""Paid answers on disk: a diskcache whose rows are plain JSON bytes, written in groups and never evicted.

diskcache's defaults would lose and endanger them: a size limit that evicts, a folder that everyone can read, and rows
that are unpickled. Here a row is text and carries a checksum bound to its key; anything else in the database is a miss.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diskcache
import orjson
import zstandard
from diskcache.core import DEFAULT_SETTINGS, METADATA, MODE_RAW

from annotator.errors import BadInput
from annotator.judges.claims import Claims
from annotator.readers.compressed import chunks
from annotator.tables import write_whole

if TYPE_CHECKING:
    from annotator.judges import Reply

_LOG = logging.getLogger(__name__)
_FOLDER = "answers"
_SETTINGS = {
    "size_limit": 2**60,
    "eviction_policy": "none",
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "disk_min_file_size": 2**60,  # every value stays inside the database: no file names to follow
    "disk_pickle_protocol": 2,  # never used; a stored setting that diskcache passes to the constructor of its disk
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 2,  # FULL: a commit is on disk, and with hundreds of answers in one it costs little
}
_KNOWN_SETTINGS = set(DEFAULT_SETTINGS) | set(METADATA) | set(_SETTINGS)
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_CHECKED_WHOLE_BYTES = 1 << 26  # a bigger database is not read through at the start; its damage shows when it is met
_SUM_CHARS = 16
_IMPORTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """One paid answer.

    label: the fields of a label. model: as served. strategy: how the form was enforced. usage: [requests, input tokens,
    cached input tokens, output tokens] over all tries. confidence: a probability, or None.
    """

    label: dict[str, Any]
    model: str
    strategy: str
    usage: Sequence[int]
    confidence: float | None = None

    @classmethod
    def of(cls, reply: Reply) -> Answer:
        """What is kept of a judge's reply."""
        usage = reply.usage
        spent = (usage.requests, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
        return cls(reply.label, reply.model, reply.strategy, spent, reply.confidence)


def encode(key: str, answer: Answer) -> bytes:
    """The bytes of a row: the JSON array [checksum, answer]."""
    body = orjson.dumps([answer.label, answer.model, answer.strategy, list(answer.usage), answer.confidence])
    return b'["' + _checksum(key, body) + b'",' + body + b"]"


def decode(key: str, row: Any) -> Answer | None:
    """The answer in a row; None if the row is not one, was damaged, or belongs to another key."""
    if type(row) is not bytes or len(row) < _SUM_CHARS + 6 or row[:2] != b'["':
        return None
    body = row[_SUM_CHARS + 4 : -1]
    if _checksum(key, body) != row[2 : _SUM_CHARS + 2]:
        return None
    try:
        label, model, strategy, usage, confidence = orjson.loads(body)
    except (orjson.JSONDecodeError, ValueError, TypeError):
        return None
    return Answer(label, model, strategy, usage, confidence)


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).hexdigest()[:_SUM_CHARS].encode()


class _PlainDisk(diskcache.Disk):
    """Stores and fetches bytes only. Nothing that lies in the database is unpickled, opened or deleted by name."""

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: Any, raw: bool) -> Any:
        return key if isinstance(key, str) else ""

    def store(self, value: bytes, read: bool, key: Any = None) -> tuple[int, int, None, Any]:
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        return bytes(value) if mode == MODE_RAW and filename is None and isinstance(value, bytes) else b""

    def remove(self, file_path: str) -> None:
        """There are no files of ours, so there is none to remove."""


class AnswerCache:
    """The answers under a cache folder. Not for the event loop: every call may wait for the disk.

    claims: what this process is about to ask for, so that others that share the folder do not.
    notes: what the user should be told, such as a damaged database that was set aside.
    rejected: rows met that were no valid answers to their key.

    Raises:
        BadInput: if the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.notes: list[str] = []
        self.rejected = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._open()
                self.claims = Claims(self.folder)
        except (OSError, sqlite3.OperationalError) as error:
            raise BadInput(
                f"this cache folder cannot be used ({error})",
                where=str(self.folder),
                remedy="Choose another with --cache-dir.",
            ) from None

    @property
    def _path(self) -> Path:
        return self.folder / _FOLDER

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Processes that share the folder look it over, or set it aside, one after the other."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self) -> None:
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._path.chmod(0o700)
        fault = _damage(self._path / diskcache.core.DBNAME)
        if fault is None:
            try:
                self._cache = diskcache.Cache(str(self._path), timeout=60, disk=_PlainDisk, **_SETTINGS)
                return
            except (sqlite3.DatabaseError, TypeError, ValueError, KeyError) as error:
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode not in _CORRUPT:
                    raise
                fault = str(error)
        self._set_aside(fault)
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._cache = diskcache.Cache(str(self._path), timeout=60, disk=_PlainDisk, **_SETTINGS)

    def _set_aside(self, fault: str) -> None:
        number = 1
        while (kept := self.folder / f"{_FOLDER}.damaged-{number}").exists():
            number += 1
        self._path.rename(kept)
        fault = " ".join(fault.split())
        note = f"The answer cache was damaged ({fault}). It was set aside as {kept}, and a new one begun."
        self.notes.append(note)
        _LOG.warning(note)  # now, not at the end of a run that pays for its answers again

    def _rescue(self, error: sqlite3.DatabaseError) -> None:
        """Set a database aside that proved damaged while in use; anything else is raised again."""
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) not in _CORRUPT:
            raise error
        self._cache.close()
        with self._locked():
            if _damage(self._path / diskcache.core.DBNAME, whole=True):
                self._set_aside(str(error))
            self._open()

    def get_many(self, keys: Sequence[str]) -> list[Answer | None]:
        """The answers to some keys, None where there is none."""
        try:
            rows = [self._cache.get(key) for key in keys]
        except sqlite3.DatabaseError as error:
            self._rescue(error)
            return [None] * len(keys)
        answers = []
        for key, row in zip(keys, rows, strict=True):
            answer = None if row is None else decode(key, row)
            self.rejected += row is not None and answer is None
            answers.append(answer)
        return answers

    def put_many(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep some answers; on disk when this returns, in one transaction."""
        rows = [(key, encode(key, answer), answer.model) for key, answer in answers]
        try:
            self._write(rows)
        except sqlite3.DatabaseError as error:
            self._rescue(error)
            self._write(rows)

    def add_many(self, rows: Sequence[tuple[str, bytes, str]]) -> int:
        """Keep encoded answers (key, row, model) whose keys are new; how many they were."""
        with self._cache.transact(retry=True):
            return sum(self._cache.add(key, row, tag=model) for key, row, model in rows)

    def _write(self, rows: Sequence[tuple[str, bytes, str]]) -> None:
        with self._cache.transact(retry=True):
            for key, row, model in rows:
                self._cache.set(key, row, tag=model)

    def close(self) -> None:
        """Close the database, and give up what this process has claimed."""
        self.claims.close()
        self._cache.close()


def _damage(database: Path, *, whole: bool = False) -> str | None:
    """What is wrong with a database, or None: not SQLite, damaged pages, or things that diskcache never puts there."""
    if not database.exists():
        return None
    connection = sqlite3.connect(database, timeout=60)
    try:
        tables = dict(connection.execute("SELECT name, type FROM sqlite_master"))
        foreign = [
            name
            for name, what in tables.items()
            if what == "view" or (what == "trigger" and not name.startswith("Settings_"))
        ]
        if foreign:
            return f"it holds {foreign[0]!r}, which is not ours"
        if "Settings" in tables:
            for (key,) in connection.execute("SELECT key FROM Settings"):
                if key not in _KNOWN_SETTINGS:
                    return f"it holds the setting {key!r}, which is not ours"
        if whole or os.path.getsize(database) <= _CHECKED_WHOLE_BYTES:
            ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                return str(verdict)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return None  # another process is at work in it, which takes a sound database
        return str(error)
    finally:
        connection.close()
    return None


def cache_stats(cache_dir: str | Path) -> dict[str, Any]:
    """What a cache holds: answers, bytes on disk, answers by served model, oldest and newest as UTC times.

    Raises:
        BadInput: if there is no cache there.
    """
    with _existing(cache_dir) as connection:
        models = dict(connection.execute("SELECT tag, COUNT(*) FROM Cache GROUP BY tag ORDER BY tag"))
        oldest, newest = connection.execute("SELECT MIN(store_time), MAX(store_time) FROM Cache").fetchone()
    folder = Path(cache_dir)
    return {
        "answers": sum(models.values()),
        "bytes": sum(file.stat().st_size for file in (folder / _FOLDER).glob("cache.db*")),
        "models": models,
        "oldest": _utc(oldest),
        "newest": _utc(newest),
        "set_aside": sorted(str(path) for path in folder.glob(f"{_FOLDER}.damaged-*")),
    }


def prune_cache(cache_dir: str | Path, *, older_than_days: float | None = None, model: str | None = None) -> int:
    """Delete the answers that meet all conditions given; how many there were. They would have to be paid for again.

    Raises:
        BadInput: if there is no cache there, or no condition is given.
    """
    conditions: dict[str, Any] = {}
    if older_than_days is not None:
        conditions["store_time < ?"] = time.time() - older_than_days * 86_400
    if model is not None:
        conditions["tag = ?"] = model
    if not conditions:
        raise BadInput("no condition", where="cache prune", remedy="Say which answers, by age or by model.")
    with _existing(cache_dir) as connection:
        deleted = connection.execute(f"DELETE FROM Cache WHERE {' AND '.join(conditions)}", [*conditions.values()])
        connection.commit()
        return deleted.rowcount


def export_cache(cache_dir: str | Path, path: str | Path) -> int:
    """Write all answers to a .jsonl.zst file that other machines and versions can import; how many they are.

    A line: {"key": 64 hex digits, "model": as served, "row": [checksum, answer]}.
    """
    count = 0

    def fill(temporary: Path) -> None:
        nonlocal count
        with (
            _existing(cache_dir) as connection,
            temporary.open("wb") as opened,
            zstandard.ZstdCompressor(level=6).stream_writer(opened) as packed,
        ):
            for key, model, row in connection.execute("SELECT key, tag, value FROM Cache ORDER BY key"):
                if isinstance(key, str) and decode(key, row) is not None:
                    packed.write(b'{"key":"%b","model":%b,"row":%b}\n' % (key.encode(), orjson.dumps(model), row))
                    count += 1

    write_whole(Path(path), fill)
    return count


def import_cache(cache_dir: str | Path, path: str | Path) -> int:
    """Add the answers of an exported file; how many were not there before. Existing answers are kept as they are.

    Raises:
        BadInput: the file cannot be read or is cut short, or a line is not an exported answer or was damaged; what
            stands before it is added.
    """
    source = Path(path)
    cache = AnswerCache(cache_dir)
    added = number = 0
    try:
        lines = _lines(source)
        while group := list(itertools.islice(lines, _IMPORTED_AT_ONCE)):
            rows = []
            for line in group:
                number += 1
                rows.append(_imported(line, f"{source}:{number}"))
            added += cache.add_many(rows)
    finally:
        cache.close()
    return added


def _lines(path: Path) -> Iterator[bytes]:
    kept = b""
    for piece in chunks(path):
        *whole, kept = (kept + piece).split(b"\n")
        yield from whole
    if kept:
        yield kept


def _imported(line: bytes, where: str) -> tuple[str, bytes, str]:
    try:
        parsed = orjson.loads(line)
        key, model = parsed["key"], parsed["model"]
        row = line[line.index(b'"row":') + 6 : line.rindex(b"}")]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        key, model, row = "", "", b""
    if not isinstance(key, str) or not isinstance(model, str) or decode(key, bytes(row)) is None:
        raise BadInput("not an exported answer, or damaged", where=where, remedy="Export it again.")
    return key, bytes(row), model


@contextmanager
def _existing(cache_dir: str | Path) -> Iterator[sqlite3.Connection]:
    database = Path(cache_dir) / _FOLDER / diskcache.core.DBNAME
    if not database.exists():
        raise BadInput("there is no answer cache in this folder", where=str(cache_dir), remedy="Check --cache-dir.")
    connection = sqlite3.connect(database, timeout=60)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        remedy = "The next `annotator label` sets it aside and begins a new one."
        raise BadInput(f"the cache cannot be read ({error})", where=str(cache_dir), remedy=remedy) from None
    finally:
        connection.close()


def _utc(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

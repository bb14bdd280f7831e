"""Which process asks for what, when several share one cache: no request is sent by two of them.

A claim is a row in a small database beside the answers. It names its owner by a file that the owner keeps locked as
long as it lives: when the lock can be had, the owner is dead, and its claims are void at once, however it died.
"""

from __future__ import annotations

import fcntl
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_FOLDER = "claims"


class Claims:
    """The claims of this process in a cache folder. Like the cache, not for the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._me = uuid.uuid4().hex
        self._alive = self._lock_of(self._me)
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        database = self._folder / "claims.db"
        try:
            self._connection = self._connect(database)
        except sqlite3.DatabaseError:
            database.unlink(missing_ok=True)  # claims are worth nothing when nobody is alive to tell of them
            self._connection = self._connect(database)

    def _connect(self, database: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(database, timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # a claim need not outlive the machine
        connection.execute("CREATE TABLE IF NOT EXISTS claim (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID")
        return connection

    def take(self, keys: Sequence[str]) -> set[str]:
        """Claim some keys; those of them that another live process has already, and that this one must not ask for."""
        rows = [(key, self._me) for key in keys]
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR IGNORE INTO claim VALUES (?, ?)", rows)
            foreign: dict[str, list[str]] = {}
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                found = connection.execute(
                    f"SELECT key, owner FROM claim WHERE owner != ? AND key IN ({marks})", [self._me, *some]
                )
                for key, owner in found:
                    foreign.setdefault(owner, []).append(key)
            theirs: set[str] = set()
            for owner, claimed in foreign.items():
                if self._is_alive(owner):
                    theirs.update(claimed)
                else:
                    inherited = [(key, self._me) for key in claimed]
                    connection.execute("DELETE FROM claim WHERE owner = ?", [owner])
                    connection.executemany("INSERT OR REPLACE INTO claim VALUES (?, ?)", inherited)
                    (self._folder / f"{owner}.alive").unlink(missing_ok=True)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return theirs

    def release(self, keys: Sequence[str]) -> None:
        """Give up claims: the answers are in the cache, or will not be asked for."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("DELETE FROM claim WHERE key = ? AND owner = ?", [(key, self._me) for key in keys])
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Give up all claims."""
        self._connection.execute("DELETE FROM claim WHERE owner = ?", [self._me])
        self._connection.close()
        (self._folder / f"{self._me}.alive").unlink(missing_ok=True)
        self._alive.close()

    def _lock_of(self, owner: str) -> IO[str]:
        return (self._folder / f"{owner}.alive").open("w")

    def _is_alive(self, owner: str) -> bool:
        path = self._folder / f"{owner}.alive"
        try:
            with path.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

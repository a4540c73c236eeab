"""Checkpoints of the windows of a site: SQLite, all of one place in the ring."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from crdt.sqlite_file import LogError, opened

_SCHEMA = "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, data BLOB NOT NULL);"
_VERSION = 1
FILE = "windows.db"


class Checkpoints:
    """One file, held by one process. What :meth:`write` was given is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        :raises LogError: if it cannot be used, or another process holds it.
        """
        self._path = path
        self._db = opened(path, _SCHEMA, _VERSION, of="log of windows")

    def read(self) -> dict[str, bytes]:
        """Return state by key; empty before the first write.

        :raises LogError: if the file cannot be read.
        """
        try:
            return dict(self._db.execute("SELECT key, data FROM state").fetchall())
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot be read: {error}") from error

    def write(self, state: Mapping[str, bytes], *, anew: bool = False) -> None:
        """Put state in the place of that of the same keys, all or none.

        :param anew: whether everything else goes.
        :raises LogError: if the disk is full or fails; then nothing of it is stored.
        """
        try:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                if anew:
                    db.execute("DELETE FROM state")
                db.executemany(
                    "INSERT OR REPLACE INTO state (key, data) VALUES (?, ?)", list(state.items())
                )
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot store windows: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

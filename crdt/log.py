"""The durable log of an edge's replicas: SQLite, in order of an integer, never of wall time.

A transaction is on disk when :meth:`Log.append` returns (WAL, ``synchronous=FULL``), so an edit
may be acknowledged then, and a ``kill -9`` or a power cut loses nothing that was. Each start
mints an incarnation, so a restored backup never reuses a counter.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crdt.sqlite_file import LogError, opened

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lives (number INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS updates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS updates_device ON updates (device, seq);
"""
_VERSION = 1
_ADVICE = "; run that one here. A new edge.data would forget what the cloud has not heard yet"
_HELD = "; is another edge process running with the same edge.data?"
_FOLD_BYTES = 4_096
"""Updates of a device are replaced by one when they are longer, and longer than that one."""


class Log:
    """One file. Only one process may hold it; used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the log, or make it.

        :raises LogError: if the file is no log, of another version, or held by another process.
        """
        self._path = path
        self._db = opened(path, _SCHEMA, _VERSION, of="twin log", other_version=_ADVICE, hint=_HELD)
        try:
            rows = self._db.execute("SELECT device, sum(length(data)) FROM updates GROUP BY device")
            self._sizes: dict[str, tuple[int, int]] = {d: (0, size) for d, size in rows}
            """Device -> bytes when last replaced by one update, and bytes since."""
        except sqlite3.Error as error:
            raise LogError(f"{path}: cannot be used as a twin log: {error}") from error

    def mint(self) -> str:
        """Return a new incarnation, such as ``7-3fa9c1d2``: no other life has had it.

        The number orders lives for people; the random part also tells apart two lives of a
        backup that was restored twice.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM lives").fetchone()
            name = f"{row[0]}-{secrets.token_hex(4)}"
            self._db.execute("INSERT INTO lives VALUES (?, ?)", (row[0], name))
        return name

    def load(self) -> Mapping[str, Sequence[bytes]]:
        """Return the updates of every device, in the order they were appended."""
        found: dict[str, list[bytes]] = {}
        for device, data in self._db.execute("SELECT device, data FROM updates ORDER BY seq"):
            found.setdefault(device, []).append(data)
        return found

    def append(
        self,
        device: str,
        updates: Sequence[bytes],
        whole: Callable[[], bytes],
        *,
        replace: bool = False,
    ) -> None:
        """Store updates; they are on disk when this returns.

        :param whole: gives the device's whole Doc as one update, asked for now and then to
            keep the log short.
        :param replace: in place of all that is stored, as of another Doc.
        :raises LogError: if the disk is full or fails; then nothing of it is stored.
        """
        least, more = self._sizes.get(device, (0, 0))
        more += sum(map(len, updates))
        fold = replace or more > max(_FOLD_BYTES, least)
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                if fold:
                    self._db.execute("DELETE FROM updates WHERE device = ?", (device,))
                    updates = [whole()]
                    least, more = len(updates[0]), 0
                self._db.executemany(
                    "INSERT INTO updates (device, data) VALUES (?, ?)",
                    [(device, update) for update in updates],
                )
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot store an update: {error}") from error
        self._sizes[device] = (least, more)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

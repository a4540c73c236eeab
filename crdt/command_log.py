"""The commands of an edge on disk: SQLite, a row for each, as of its last step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from crdt.core.commands.tray import Held, Stage, decode_held
from crdt.core.errors import WireError
from crdt.sqlite_file import LogError, opened

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, id TEXT NOT NULL,
    closed INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (device, id)
);
CREATE INDEX IF NOT EXISTS commands_closed ON commands (closed, seq);
"""
_VERSION = 1


class CommandLog:
    """One file, held by one process. What :meth:`save` was given is on disk when it returns."""

    def __init__(self, path: Path, max_remembered: int) -> None:
        """Open the file, or make it.

        :param max_remembered: closed commands that are kept, the newest.
        :raises LogError: if it cannot be used, or another process holds it.
        """
        self._path, self._max_remembered = path, max_remembered
        self._db = opened(path, _SCHEMA, _VERSION, of="log of commands")

    def load(self) -> list[Held]:
        """Return all that is kept, in the order in which it came.

        :raises LogError: if a row is damaged.
        """
        try:
            rows = self._db.execute("SELECT data FROM commands ORDER BY seq")
            return [decode_held(data) for (data,) in rows]
        except (sqlite3.Error, WireError, ValueError) as error:
            raise LogError(f"{self._path}: cannot be read: {error}") from error

    def save(self, steps: Iterable[Held]) -> None:
        """Store commands as they are now, all or none.

        :raises LogError: if the disk is full or fails; then nothing of it is stored.
        """
        rows = [(h.device, h.command.id, int(h.stage is Stage.CLOSED), h.encode()) for h in steps]
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT INTO commands (device, id, closed, data) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (device, id) "
                    "DO UPDATE SET closed = excluded.closed, data = excluded.data",
                    rows,
                )
                if any(closed for _, _, closed, _ in rows):
                    self._db.execute(
                        "DELETE FROM commands WHERE closed AND seq <= (SELECT seq FROM commands "
                        "WHERE closed ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                        (self._max_remembered,),
                    )
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot store a command: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

"""The alerts of a site on disk: SQLite, so that a start goes on with those that fire."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from crdt.sqlite_file import LogError, opened
from edge.local.courier import Message
from streams.core.alert_states import FIRING

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, firing INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS alerts_over ON alerts (firing, seq);
CREATE TABLE IF NOT EXISTS untold (seq INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL,
    queued_ms INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, data BLOB NOT NULL);
"""
_VERSION = 1


class Journal:
    """One file, held by one process. What :meth:`record` was given is on disk when it returns."""

    def __init__(self, path: Path, max_over: int) -> None:
        """Open the file, or make it.

        :param max_over: alerts that do not fire any more and are kept, the newest.
        :raises LogError: if it cannot be used, or another process holds it.
        """
        self._path, self._max_over = path, max_over
        self._db = opened(path, _SCHEMA, _VERSION, of="log of alerts")

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are kept, each in its last state, in the order of their changes.

        :raises LogError: if the file cannot be read.
        """
        return [
            orjson.loads(data) for (data,) in self._read("SELECT data FROM alerts ORDER BY seq")
        ]

    def state(self) -> dict[str, bytes]:
        """Return state by key.

        :raises LogError: if the file cannot be read.
        """
        return dict(self._read("SELECT key, data FROM state"))

    def untold(self) -> list[tuple[int, bytes]]:
        """Return changes that are not in the spool yet, by number, in order.

        :raises LogError: if the file cannot be read.
        """
        return self._read("SELECT seq, data FROM untold ORDER BY seq")

    def record(
        self,
        changed: Sequence[Mapping[str, Any]],
        to_tell: Iterable[Mapping[str, Any]],
        state: Mapping[str, bytes],
        messages: Iterable[Message] = (),
    ) -> None:
        """Store alerts that changed and what they follow from, all or none.

        :param to_tell: those of them that go up.
        :param messages: to webhooks of the site.
        :raises LogError: if the disk is full or fails; then nothing of it is stored.
        """
        rows = [(one["id"], int(one["state"] == FIRING), orjson.dumps(one)) for one in changed]
        told = [(orjson.dumps(one),) for one in to_tell]
        waiting = [(m.id, m.endpoint, m.queued_ms, orjson.dumps(m.alert)) for m in messages]
        try:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                # A change is the newest again: it gets the next number.
                db.executemany(
                    "INSERT OR REPLACE INTO alerts (id, firing, data) VALUES (?, ?, ?)", rows
                )
                db.executemany("INSERT INTO untold (data) VALUES (?)", told)
                db.executemany(
                    "INSERT OR IGNORE INTO messages (id, endpoint, queued_ms, data) "
                    "VALUES (?, ?, ?, ?)",
                    waiting,
                )
                db.executemany(
                    "INSERT OR REPLACE INTO state (key, data) VALUES (?, ?)", list(state.items())
                )
                db.execute(
                    "DELETE FROM alerts WHERE firing = 0 AND seq <= (SELECT seq FROM alerts "
                    "WHERE firing = 0 ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                    (self._max_over,),
                )
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot store alerts: {error}") from error

    def told(self, last: int) -> None:
        """Note that all changes up to a number are in the spool.

        :raises LogError: if the disk is full or fails: they will be told again.
        """
        try:
            self._db.execute("DELETE FROM untold WHERE seq <= ?", (last,))
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot note what was told: {error}") from error

    def messages(self) -> list[Message]:
        """Return the messages to webhooks of the site that wait, the oldest first.

        :raises LogError: if the file cannot be read.
        """
        rows = self._read("SELECT id, endpoint, data, queued_ms FROM messages ORDER BY seq")
        return [
            Message(identity, endpoint, orjson.loads(data), queued_ms)
            for identity, endpoint, data, queued_ms in rows
        ]

    def finished(self, messages: Iterable[str]) -> None:
        """Forget messages: they were delivered, or given up.

        :raises LogError: if the disk is full or fails: they wait again after a start.
        """
        try:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("DELETE FROM messages WHERE id = ?", [(one,) for one in messages])
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot note what was delivered: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _read(self, query: str) -> list[Any]:
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"{self._path}: cannot be read: {error}") from error

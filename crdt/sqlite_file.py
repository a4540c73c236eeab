"""A SQLite file that one process holds, and whose transactions outlive a power cut."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class LogError(Exception):
    """The log cannot be used; the message says which file and why."""


def prepare(db: sqlite3.Connection, path: Path, schema: str, version: int, advice: str) -> None:
    """Lock a file, make its tables, and check its version.

    What is committed is on disk then (WAL, ``synchronous=FULL``).

    :param advice: what to do about a file of another version.
    :raises LogError: if it was written by another version; the connection is closed.
    """
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found not in (0, version):
        db.close()
        raise LogError(
            f"{path}: has version {found}, this code reads {version}: it was written "
            f"by another version of Headwater{advice} (docs/upgrading.md)"
        )
    db.executescript(schema)
    if found != version:
        # Each write is one more that a full disk could refuse.
        db.execute(f"PRAGMA user_version={version}")

"""A SQLite file that one process holds, and whose transactions outlive a power cut."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_BUSY_S = 0.5


class LogError(Exception):
    """The log cannot be used; the message says which file and why."""


def opened(
    path: Path, schema: str, version: int, *, of: str, other_version: str = "", hint: str = ""
) -> sqlite3.Connection:
    """Lock a file, or make it; make its tables, and check its version.

    What is committed is on disk then (WAL, ``synchronous=FULL``).

    :param of: what it is a log of, for the message.
    :param other_version: what to do about a file of another version.
    :param hint: what may be the matter where it cannot be used.
    :raises LogError: if it cannot be used, was written by another version, or is held by another
        process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        _prepare(db, path, schema, version, other_version)
    except sqlite3.Error as error:
        raise LogError(f"{path}: cannot be used as a {of}: {error}{hint}") from error
    return db


def _prepare(db: sqlite3.Connection, path: Path, schema: str, version: int, advice: str) -> None:
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

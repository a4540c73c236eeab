"""Installed servers, cached outside the clone by name and version, and checked before use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

_MANIFEST = "manifest.json"


def cache_root() -> Path:
    """Return ``$XDG_CACHE_HOME/headwater`` or ``~/.cache/headwater``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headwater"


def installed(name: str, version: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of an installed server, installing it where it is missing or damaged.

    :param install: fills an empty folder. It runs once however many processes ask at a time,
        and its folder appears under the final name only when it is whole.
    """
    target = cache_root() / f"{name}-{version}"
    if is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")):
        if is_whole(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}-") as temporary:
            fresh = Path(temporary) / "content"
            fresh.mkdir()
            install(fresh)
            (fresh / _MANIFEST).write_bytes(orjson.dumps(_sums(fresh)))
            fresh.rename(target)
    return target


def is_whole(folder: Path) -> bool:
    """Whether a folder holds just what its manifest says: names, sizes and hashes."""
    manifest = folder / _MANIFEST
    if not manifest.exists():
        return False
    try:
        return bool(orjson.loads(manifest.read_bytes()) == _sums(folder))
    except orjson.JSONDecodeError:
        return False


def _sums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file: one process at a time."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

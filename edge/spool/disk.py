"""What the spool asks of a file system; a test gives one that is full or ends a write halfway."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_STAGED = ".new"


class Disk:
    """One folder. Names are relative; every method raises OSError as the system does."""

    def __init__(self, root: Path) -> None:
        """Make the folder if there is none."""
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, int] = {}

    def __str__(self) -> str:
        return str(self._root)

    def make_folder(self, name: str) -> None:
        """Make a folder if there is none, durably."""
        (self._root / name).mkdir(exist_ok=True)
        self._sync_folder(self._root)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted."""
        return sorted(path.name for path in (self._root / folder).iterdir() if path.is_file())

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """Return bytes of a file; all from *offset* by default."""
        with (self._root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def append(self, name: str, data: bytes, *, sync: bool = True) -> None:
        """Write at the end of a file that stays open; on the disk when this returns if *sync*.

        After an error nothing of *data* is in the file.
        """
        fd = self._open.get(name)
        if fd is None:
            path = self._root / name
            new = not path.exists()
            fd = self._open[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if new and sync:
                self._sync_folder(path.parent)
        begin = os.fstat(fd).st_size
        try:
            self._write(fd, data)
            if sync:
                os.fdatasync(fd)
        except OSError:
            # A torn record that stayed would be told as damage at the next start.
            with suppress(OSError):
                os.ftruncate(fd, begin)
            raise

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def replace(self, name: str, data: bytes) -> None:
        """Put *data* in the place of a file, as a whole or not at all, durably."""
        self.stage(name, data)
        self.swap(name)

    def stage(self, name: str, data: bytes) -> None:
        """Write what :meth:`swap` puts in the place of a file; all that can need room."""
        new = (self._root / name).with_suffix(_STAGED)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._write(fd, data)
            os.fsync(fd)
        except OSError:
            new.unlink()
            raise
        finally:
            os.close(fd)

    def swap(self, name: str) -> None:
        """Put what was staged in the place of a file."""
        path = self._root / name
        self.close(name)
        path.with_suffix(_STAGED).replace(path)
        self._sync_folder(path.parent)

    def close(self, name: str) -> None:
        """Close a file that was appended to; nothing if it is not open."""
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)

    def remove(self, *names: str) -> None:
        """Remove files of one folder, durably; nothing where there is none."""
        for name in names:
            self.close(name)
            (self._root / name).unlink(missing_ok=True)
        if names:
            self._sync_folder((self._root / names[0]).parent)

    def close_all(self) -> None:
        """Close every file."""
        for name in list(self._open):
            self.close(name)

    def _sync_folder(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

"""Versions of models away from their registry: fetched by hash, checked, kept, loaded.

A version is asked for as ``3/<SHA-256 of its card>``. The card has the hash of the graph, so who
vouches for those few bytes (a signed twin) vouches for all: files may come by any way.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError
from models.registry import NAME
from models.shelf import Live
from models.store import CARD, ONNX, digest, read

MAX_FILE_BYTES = 64 * 1024 * 1024
_WANTED = re.compile(r"([1-9][0-9]{0,8})/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version of a model, by number and the SHA-256 of its card."""

    name: str
    version: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.version}/{self.sha256}"


def wanted(name: str, value: object) -> Wanted:
    """Read what is asked for.

    :param value: ``version/sha256``.
    :raises ModelError: if it, or the name, is of another form.
    """
    found = _WANTED.fullmatch(value) if isinstance(value, str) else None
    if found is None or not NAME.fullmatch(name):
        raise ModelError(f"{name!r}: {str(value)[:80]!r} is no version; expected NUMBER/SHA256")
    return Wanted(name, int(found[1]), found[2])


class Depot:
    """A folder of fetched versions.

    :param keep: versions of a name that stay; the oldest go.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self._folder, self._keep = folder, keep

    def load(self, one: Wanted) -> Live:
        """Return a version that is here.

        :raises ModelError: if it is not, or was changed.
        """
        stored = read(self._place(one), one.sha256)
        return Live(one.name, one.version, stored.card, stored.scorer())

    def put(self, one: Wanted, card: bytes, graph: bytes) -> Live:
        """Keep a version, if it is what was asked for; return it, loaded.

        :raises ModelError: if it is something else, or cannot be stored.
        """
        if digest(card) != one.sha256:
            raise ModelError(f"{one.name} {one.version}: the card is another than asked for")
        expected = json.loads(card)["sha256"].get(ONNX)
        if digest(graph) != expected:
            raise ModelError(f"{one.name} {one.version}: the graph is another than its card says")
        place = self._place(one)
        fresh = place.with_name(f".{place.name}")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            (fresh / CARD).write_bytes(card)
            (fresh / ONNX).write_bytes(graph)
            shutil.rmtree(place, ignore_errors=True)
            fresh.replace(place)
        except OSError as error:
            raise ModelError(f"{place}: {error.strerror}") from error
        live = self.load(one)
        self._prune(one)
        return live

    def _place(self, one: Wanted) -> Path:
        return self._folder / one.name / f"{one.version}-{one.sha256[:16]}"

    def _prune(self, newest: Wanted) -> None:
        others = [path for path in (self._folder / newest.name).iterdir() if path.name[0] != "."]
        # What a file's time says of the newest may be wrong: clocks jump, and tick coarsely.
        others.remove(self._place(newest))
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[self._keep - 1 :]:
            shutil.rmtree(path, ignore_errors=True)

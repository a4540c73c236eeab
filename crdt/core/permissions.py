"""Who may write what: checked once, by the hub, before anything of a spoke is merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from crdt.core.cells import Cell
from crdt.core.errors import WireError
from crdt.core.kinds import LATCH
from crdt.core.ledger import Conflict


@dataclass(frozen=True, slots=True)
class Grant:
    """What a spoke may write. Globs; the spoke's own actors only, whatever they say."""

    actors: str
    """Prefix of the names of its actors, such as ``edge:north:``."""
    devices: tuple[str, ...] = ("*",)
    paths: tuple[str, ...] = ("*",)
    releases: tuple[str, ...] = ("*",)
    """Latches that it may release; to set one is a write like others."""

    def check_sender(self, device: str, sender: str) -> None:
        """Check who speaks about which device.

        :raises WireError: if it may not.
        """
        if not sender.startswith(self.actors):
            raise WireError("forged-actor", f"{sender[:80]!r} is none of {self.actors}*")
        if not _any(device, self.devices):
            raise WireError("not-permitted", f"{self.actors}* may not write {device!r}")

    def check_writes(self, cells: Iterable[Cell], conflicts: Iterable[Conflict]) -> None:
        """Check what is new to the hub in a spoke's message.

        :param cells: those that would change what the hub holds.
        :param conflicts: entries that would be new in its ledger.
        :raises WireError: if one of them is not the spoke's to write.
        """
        for cell in cells:
            if not cell.actor.startswith(self.actors):
                raise WireError(
                    "forged-actor", f"{cell.name}: only {self.actors}* may write as itself"
                )
            if not _any(cell.path, self.paths):
                raise WireError("not-permitted", f"{self.actors}* may not write {cell.path}")
            released = cell.kind == LATCH and cell.value is False
            if released and not _any(cell.path, self.releases):
                raise WireError("not-permitted", f"{self.actors}* may not release {cell.path}")
        for entry in conflicts:
            sides = (entry.winner.actor, entry.loser.actor)
            if not any(actor.startswith(self.actors) for actor in sides):
                raise WireError("forged-actor", f"{entry.key[:120]!r}: a conflict among others")


def _any(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)

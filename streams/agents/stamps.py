"""How far the parts of a partition have folded its log, and which of them are to be stored.

A partition's state is stored in parts at different offsets. A part that was stored later than
others meets records again that it has folded already, and passes them over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.core.registry import NEVER
from streams.errors import StateError


@dataclass(slots=True)
class Stamp:
    """Of one part."""

    at: int = -1
    """Offset of the last record that is in its stored state."""
    dirty_since: int = NEVER
    """Offset of the first record that changed it since."""

    def takes(self, offset: int) -> bool:
        """Whether a record is new to the part."""
        return self.at < offset

    def touch(self, offset: int) -> None:
        """Note that a record changes the part."""
        self.dirty_since = min(self.dirty_since, offset)

    @property
    def is_dirty(self) -> bool:
        """Whether something is not stored yet."""
        return self.dirty_since != NEVER

    def stored(self) -> None:
        """Note that a snapshot was taken."""
        self.dirty_since = NEVER


def dirty(stamps: Sequence[Stamp]) -> Mapping[str, int]:
    """Return the keys of numbered parts that changed; see ``PartitionLogic.dirty``."""
    return {str(i): stamp.dirty_since for i, stamp in enumerate(stamps) if stamp.is_dirty}


def number_of(key: str, shards: int, topic: str, partition: int) -> int:
    """Return the number of a stored part.

    :raises StateError: if there is no such part here.
    """
    if not key.isdecimal() or int(key) >= shards:
        raise StateError(
            f"{topic}, partition {partition}: stored state has a shard {key}, but topics.shards is "
            f"{shards}; it may not change while state is kept"
        )
    return int(key)

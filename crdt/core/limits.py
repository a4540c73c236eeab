"""Bounds of one twin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one twin."""

    max_fields: int = 512
    """Fields, deleted ones included, that edits may create."""
    max_value_bytes: int = 65_536
    max_bytes: int = 262_144
    """All values together that edits may create; concurrent ones of two sides may double it."""
    max_conflicts: int = 1_000
    """Ledger entries kept, the newest."""
    max_ledger_bytes: int = 131_072
    """Their encoded size: the oldest give way."""
    max_actors: int = 64
    """Actors whose writes to one field are kept beside each other."""

    @property
    def max_merged_fields(self) -> int:
        """Fields that a merge may leave: sides that were apart each had ``max_fields``."""
        return 4 * self.max_fields

"""The kinds of a field, and what cells of the kinds that sum up hold.

Registers and latches are *replaced*: a write that had seen another one makes it history.
Counters and sets *sum up*: each actor writes only what it did itself, and a field is read from
the cells of all actors. An actor is one life of a replica, so the cells of ended lives would stay
for ever: a later life of the same replica carries them in its own cell instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

REGISTER: Final = 0
COUNTER: Final = 1
SET: Final = 2
LATCH: Final = 3
KINDS: Final = {"register": REGISTER, "counter": COUNTER, "set": SET, "latch": LATCH}
"""Kinds by their names in settings. Where two kinds meet in a field the greater number counts,
so that a latch is never hidden by anything else."""
KIND_NAMES: Final = {number: name for name, number in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Tally:
    """What one actor added to a counter and took from it: both only grow."""

    added: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Dots:
    """What one actor did to a set."""

    added: Mapping[bytes, int] = field(default_factory=dict)
    """Element, encoded -> this actor's counter when it last added it."""
    removed: Mapping[tuple[bytes, str], int] = field(default_factory=dict)
    """(Element, another actor) -> the counter up to which its adding was seen and undone. An adding
    that was not seen stays: adding wins."""


State: TypeAlias = Tally | Dots


@dataclass(frozen=True, slots=True)
class Sets:
    """What a cell of a latch tells of earlier ones."""

    known: Mapping[str, int] = field(default_factory=dict)
    """Actor -> its counter when it last set the latch, of those since the last release."""

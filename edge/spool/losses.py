"""The loss ledger: what was given up, when, how much and why. Pure.

A loss is written, durably, *before* what it tells of is taken away, and names the records by
segment and place. So a crash between the two is made good at the next start: the records that a
loss names are gone, whether their bytes are still there or not, and are counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

MAX_DEVICES = 256
"""Devices that one loss counts by name; the rest are counted together."""

REASONS = ("expired", "dropped", "thinned", "refused", "damaged", "filtered", "counted")


@dataclass(frozen=True, slots=True)
class Loss:
    """One entry. Times are milliseconds since the epoch, ``from_ms`` and ``to_ms`` of receipt."""

    lane: str
    reason: str
    """``expired``, ``dropped`` (no room), ``thinned``, ``refused`` (by the gateway) or
    ``damaged`` (on disk). No losses, of the lane ``ring``, are
    ``filtered`` (edge.tally) and ``counted``, what went into windows (edge.windowing.account)."""
    at_ms: int
    segment: int
    places: tuple[tuple[int, int], ...]
    """Half-open ranges of records in the segment that are gone; empty where none is whole."""
    readings: int | None
    """How many readings (or alerts); None if nobody knows."""
    from_ms: int | None = None
    to_ms: int | None = None
    detail: str = ""
    devices: Mapping[str, int] = field(default_factory=dict)
    """``tenant/device`` -> readings, of at most MAX_DEVICES."""
    other_devices: int = 0
    """Readings of further devices."""
    up: Mapping[str, int] = field(default_factory=dict)
    """Of a tally, by device as ``devices``: readings that were to go up."""
    other_up: int = 0
    window: str = ""
    """Of ``counted``: the window that ``devices`` says the readings of, in a day."""
    start_ms: int | None = None
    """When the day begins."""
    open: Mapping[str, int] = field(default_factory=dict)
    """By device: how many of them are in windows that are not closed yet."""
    newest_ms: Mapping[str, int] = field(default_factory=dict)
    """By device: receipt of the newest of them."""

    def encode(self) -> bytes:
        """Return it as JSON, which is what travels up, too."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return orjson.dumps({**value, "v": 1})


def decode(data: bytes) -> Loss:
    """Read an entry that this spool wrote.

    :raises ValueError: if it is none.
    """
    try:
        found: dict[str, Any] = orjson.loads(data)
        if found.pop("v") != 1:
            raise ValueError("a loss of a later version")
        places = tuple((int(begin), int(end)) for begin, end in found.pop("places"))
        return Loss(places=places, **found)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no entry of the loss ledger: {error}") from error


def top_devices(counts: Sequence[Mapping[str, int]]) -> tuple[dict[str, int], int]:
    """Add counts up; return those of the MAX_DEVICES greatest, and the sum of the others."""
    total: dict[str, int] = {}
    for each in counts:
        for device, count in each.items():
            total[device] = total.get(device, 0) + count
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:MAX_DEVICES]), sum(count for _, count in ordered[MAX_DEVICES:])

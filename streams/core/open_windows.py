"""Which windows are open, when they close, and which have to be told again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from streams.core.chains import Chains
from streams.core.columns import Columns
from streams.core.readings import Bool, Int32, Int64

NEVER = np.iinfo(np.int64).max
WatermarkOf = Callable[[Int32 | Int64], Int64]
"""From devices to their watermarks, in ms."""

LIFE: dict[str, tuple[Any, Any]] = {
    "device": (np.int32, 0),
    "closes_ms": (np.int64, 0),
    "late": (np.int32, 0),
    "closed": (np.bool_, False),
    "idle": (np.bool_, False),
    "shown": (np.int64, 0),
}
"""``closes_ms`` is the watermark at which a window closes; ``late`` the number of late readings
inside, which is the revision; ``idle`` marks a window closed by the idle rule before its
watermark came; ``shown`` is the count at the last provisional result."""


class OpenWindows:
    """The life of the windows of one definition, in the columns of the table that holds them.

    Open windows are in lists by device, and each device knows when its first one closes: a
    batch costs what its own devices have open, not what all have.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._open = Chains()
        self._devices = Columns({"first_close_ms": (np.int64, NEVER)})
        self._corrected: list[Int64] = []

    def put(self, slots: Int64, device: Int32, closes_ms: Int64) -> None:
        """Put new windows among the open ones."""
        c = self._columns
        c["device"][slots], c["closes_ms"][slots] = device, closes_ms
        self.relist(slots)

    def relist(self, slots: Int64) -> None:
        """List windows as open that are in the columns already."""
        if not len(slots):
            return
        device = self._columns["device"][slots]
        self._open.insert(device, slots)
        first_close_ms = self._first_close_ms(device)
        np.minimum.at(first_close_ms, device, self._columns["closes_ms"][slots])

    def count_late(self, slots: Int64, before_ms: Int64) -> None:
        """Count the rows that come after their window's close.

        :param slots: the window of each row; ``before_ms`` the watermark just before it.
        """
        c = self._columns
        late = (before_ms >= c["closes_ms"][slots]) | c["idle"][slots]
        if not late.any():
            return
        after = slots[late]
        np.add.at(c["late"], after, 1)
        self._corrected.append(after[c["closed"][after]])

    def corrected(self) -> Int64:
        """Return the closed windows that late rows have changed since the last call."""
        if not self._corrected:
            return np.empty(0, np.int64)
        slots = np.unique(np.concatenate(self._corrected))
        self._corrected = []
        return slots

    def has_open(self, devices: Int64 | Int32) -> Bool:
        """Return whether each device has an open window."""
        return self._open.any(devices)

    def of(self, devices: Int64 | Int32) -> Int64:
        """Return the open windows of some devices."""
        return self._open.walk(devices)[1]

    def due(self, devices: Int64 | Int32, watermark_ms: Int64) -> Int64:
        """Return the open windows whose close the watermark of their device has passed.

        :param devices: distinct; ``watermark_ms`` int64, one each.
        """
        some = watermark_ms >= self._first_close_ms(devices)[devices]
        at, slots = self._open.walk(devices[some])
        passed = watermark_ms[some][at] >= self._columns["closes_ms"][slots]
        due: Int64 = slots[passed]
        return due

    def close(self, slots: Int64, *, idle: bool = False) -> None:
        """Mark open windows as closed."""
        c = self._columns
        c["closed"][slots] = True
        c["idle"][slots] = idle
        devices = np.unique(c["device"][slots])
        rest = self.of(devices)
        self._open.clear(devices)
        self._first_close_ms(devices)[devices] = NEVER
        self.relist(rest[~c["closed"][rest]])

    def news(self, slots: Int64, count: Int64) -> Bool:
        """Return bool[n]: which open windows have content that was not shown yet; mark it."""
        shown = self._columns["shown"]
        news: Bool = shown[slots] != count
        shown[slots] = count
        return news

    def renumber(self, new: Int64) -> None:
        """Follow a renumbering of windows; only closed ones may have gone."""
        self._open.renumber_items(new)

    def _first_close_ms(self, devices: Int64 | Int32) -> Int64:
        self._devices.grow_to(int(devices.max(initial=-1)) + 1)
        first: Int64 = self._devices["first_close_ms"]
        return first

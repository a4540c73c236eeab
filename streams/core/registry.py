"""Dense integers for the devices and series of one partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.core.classes import COLUMNS
from streams.core.columns import Columns
from streams.core.placement import shard_of
from streams.core.readings import Bool, Int32, Labels, Readings
from streams.core.windows import Tumbling

NEVER = np.iinfo(np.int64).max

_DEVICE: dict[str, tuple[Any, Any]] = {
    "shard": (np.int32, 0),
    "max_t_ms": (np.int64, -1),
    "log_ms": (np.int64, -1),
    "deadline_ms": (np.int64, NEVER),
    **dict.fromkeys(COLUMNS, (np.int64, 0)),
}
"""``max_t_ms`` is the greatest event time shown, ``log_ms`` the log time of the last record,
``deadline_ms`` the log time at which the next idle rule fires; then one counter per class."""


class Registry:
    """Names to indices and back. Indices are private to one run: snapshots carry names."""

    def __init__(self, shards: int, definitions: Sequence[Tumbling]) -> None:
        self._shards = shards
        self._definitions = definitions
        self.devices = Columns(_DEVICE)
        self.device_names: list[tuple[str, str]] = []
        self._device_index: dict[tuple[str, str], int] = {}
        self.series = Columns({"device": (np.int32, 0), "max_t_ms": (np.int64, -1)})
        self.metrics: list[str] = []
        self._series_index: dict[tuple[int, str], int] = {}
        self.sites: list[str] = []
        self._site_index: dict[str, int] = {}
        self.members = np.empty((0, len(definitions)), np.bool_)
        self._members_of: dict[str, list[bool]] = {}

    def intern_devices(self, readings: Readings) -> Int32:
        """Return the device of each row, registering new ones."""
        tenants, devices = readings.tenant, readings.device
        pair = tenants.codes.astype(np.int64) * max(1, len(devices.values)) + devices.codes
        unique, inverse = np.unique(pair, return_inverse=True)
        width = max(1, len(devices.values))
        found = [
            self.device(tenants.values[p // width], devices.values[p % width])
            for p in unique.tolist()
        ]
        return np.asarray(found, np.int32)[inverse]

    def device(self, tenant: str, device: str) -> int:
        """Return the index of a device, registering a new one."""
        name = (tenant, device)
        index = self._device_index.get(name)
        if index is None:
            index = self._device_index[name] = len(self.device_names)
            self.device_names.append(name)
            self.devices.grow_to(index + 1)
            self.devices["shard"][index] = shard_of(tenant, device, self._shards)
        return index

    def intern_series(self, device: Int32, metric: Labels) -> Int32:
        """Return the series of each row, registering new ones."""
        width = max(1, len(metric.values))
        unique, inverse = np.unique(
            device.astype(np.int64) * width + metric.codes, return_inverse=True
        )
        found = [self.serie(p // width, metric.values[p % width]) for p in unique.tolist()]
        return np.asarray(found, np.int32)[inverse]

    def serie(self, device: int, metric: str) -> int:
        """Return the index of a device's series, registering a new one."""
        key = (device, metric)
        index = self._series_index.get(key)
        if index is None:
            index = self._series_index[key] = len(self.metrics)
            self.metrics.append(metric)
            self.series.grow_to(index + 1)
            self.series["device"][index] = device
            self._grow_members(index, metric)
        return index

    def _grow_members(self, index: int, metric: str) -> None:
        flags = self._members_of.get(metric)
        if flags is None:
            flags = self._members_of[metric] = [d.applies_to(metric) for d in self._definitions]
        if index >= len(self.members):
            grown = np.zeros((max(64, 2 * index), len(self._definitions)), np.bool_)
            grown[: len(self.members)] = self.members
            self.members = grown
        self.members[index] = flags

    def intern_sites(self, site: Labels) -> Int32:
        """Return the site of each row, registering new ones."""
        remap = np.asarray([self.site(name) for name in site.values], np.int32)
        return remap[site.codes] if len(remap) else np.empty(0, np.int32)

    def site(self, name: str) -> int:
        """Return the index of a site, registering a new one."""
        index = self._site_index.setdefault(name, len(self.sites))
        if index == len(self.sites):
            self.sites.append(name)
        return index

    def series_of(self, devices: Bool) -> Bool:
        """Return bool[series]: whether its device is in the mask."""
        mask: Bool = devices[self.series["device"]]
        return mask

"""Dense integers for the devices and series of one partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.core.classes import COLUMNS
from streams.core.columns import Columns
from streams.core.index import ABSENT, Index
from streams.core.placement import shard_of
from streams.core.readings import Bool, Int32, Int64, Labels, Readings, concat_readings
from streams.core.windows import Window

NEVER = np.iinfo(np.int64).max
_METRIC_BITS = 20
_MAX_METRICS = 1 << _METRIC_BITS

_DEVICE: dict[str, tuple[Any, Any]] = {
    "shard": (np.int32, 0),
    "tenant": (np.int32, 0),
    "max_t_ms": (np.int64, -1),
    "log_ms": (np.int64, -1),
    "deadline_ms": (np.int64, NEVER),
    **dict.fromkeys(COLUMNS, (np.int64, 0)),
}
"""``max_t_ms`` is the greatest event time shown, ``log_ms`` the log time of the last record,
``deadline_ms`` the log time at which the next idle rule fires; then one counter per class."""
_SERIES: dict[str, tuple[Any, Any]] = {
    "device": (np.int32, 0),
    "metric": (np.int32, 0),
    "max_t_ms": (np.int64, -1),
}


class _Names:
    """Strings to integers in order of appearance, and back."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        code = self._codes.setdefault(name, len(self.values))
        if code == len(self.values):
            self.values.append(name)
        return code

    def codes(self, labels: Labels) -> Int32:
        """Return the integer of each row."""
        remap = np.asarray([self.code(name) for name in labels.values], np.int32)
        return remap[labels.codes] if len(remap) else np.empty(0, np.int32)


class Registry:
    """Names to indices and back. Indices are private to one run: snapshots carry names."""

    def __init__(self, shards: int, definitions: Sequence[Window]) -> None:
        self._shards = shards
        self._definitions = definitions
        self.devices = Columns(_DEVICE)
        self.names: list[str] = []
        """Of each device."""
        self.series = Columns(_SERIES)
        self._devices_of: dict[str, dict[str, int]] = {}
        self._tenants, self._metrics, self._sites = _Names(), _Names(), _Names()
        self._series_index = Index()
        self._members = np.empty((0, len(definitions)), np.bool_)

    @property
    def tenants(self) -> Sequence[str]:
        """Names of tenants, by the column ``tenant`` of devices."""
        return self._tenants.values

    @property
    def metrics(self) -> Sequence[str]:
        """Names of metrics, by the column ``metric`` of series."""
        return self._metrics.values

    @property
    def sites(self) -> Sequence[str]:
        """Names of sites."""
        return self._sites.values

    def concat(self, parts: Sequence[Readings]) -> Readings:
        """Concatenate batches, their devices as our own integers: those cost one look-up each."""
        devices = np.concatenate([self._intern(part) for part in parts])
        return concat_readings(parts, device=Labels(devices, self.names))

    def intern_devices(self, readings: Readings) -> Int32:
        """Return the device of each row, registering new ones."""
        if readings.device.values is self.names:
            return readings.device.codes
        return self._intern(readings)

    def _intern(self, readings: Readings) -> Int32:
        tenants, devices = readings.tenant, readings.device
        if len(tenants.values) == 1:
            found = self._lookup(tenants.values[0], devices.values)
            return found[devices.codes]
        width = max(1, len(devices.values))
        pair = tenants.codes.astype(np.int64) * width + devices.codes
        unique, inverse = np.unique(pair, return_inverse=True)
        each = [
            self.device(tenants.values[p // width], devices.values[p % width])
            for p in unique.tolist()
        ]
        return np.asarray(each, np.int32)[inverse]

    def _lookup(self, tenant: str, names: Sequence[str]) -> Int32:
        known = self._devices_of.setdefault(tenant, {})
        found = [known.get(name, ABSENT) for name in names]
        if ABSENT in found:
            found = [self.device(tenant, name) for name in names]
        return np.asarray(found, np.int32)

    def device(self, tenant: str, device: str) -> int:
        """Return the index of a device, registering a new one."""
        known = self._devices_of.setdefault(tenant, {})
        index = known.get(device)
        if index is None:
            index = known[device] = len(self.names)
            self.names.append(device)
            self.devices.grow_to(index + 1)
            self.devices["shard"][index] = shard_of(tenant, device, self._shards)
            self.devices["tenant"][index] = self._tenants.code(tenant)
        return index

    def intern_series(self, device: Int32, metric: Labels) -> Int32:
        """Return the series of each row, registering new ones.

        :raises ValueError: if there are more than 2**20 metrics.
        """
        metrics = self._metrics.codes(metric)
        if len(self.metrics) > _MAX_METRICS:
            raise ValueError(f"more than {_MAX_METRICS:,} names of metrics in one partition")
        keys = (device.astype(np.int64) << _METRIC_BITS) | metrics
        found = self._series_index.find(keys)
        missing = np.flatnonzero(found == ABSENT)
        if len(missing):
            fresh, inverse = np.unique(keys[missing], return_inverse=True)
            made = np.arange(self.series.n, self.series.n + len(fresh), dtype=np.int32)
            self._series_index.add(fresh, made)
            owner, kind = fresh >> _METRIC_BITS, fresh & (_MAX_METRICS - 1)
            self.series.append({"device": owner, "metric": kind}, len(fresh))
            found[missing] = made[inverse]
        return found

    def members(self, series: Int32) -> Bool:
        """Return bool[n, definitions]: which definitions apply to each series."""
        known = len(self._members)
        if known < len(self.metrics):
            more = [[d.applies_to(m) for d in self._definitions] for m in self.metrics[known:]]
            width = len(self._definitions)
            added = np.asarray(more, np.bool_).reshape(-1, width)
            self._members = np.concatenate([self._members, added])
        applies: Bool = self._members[self.series["metric"][series]]
        return applies

    def intern_sites(self, site: Labels) -> Int32:
        """Return the site of each row, registering new ones."""
        return self._sites.codes(site)

    def site(self, name: str) -> int:
        """Return the index of a site, registering a new one."""
        return self._sites.code(name)

    def series_of(self, devices: Bool) -> Int64:
        """Return the series of the devices in a mask, ascending."""
        return np.flatnonzero(devices[self.series["device"]])

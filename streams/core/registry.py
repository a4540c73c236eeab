"""Dense integers for the devices and series of one partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streams.core.classes import COLUMNS
from streams.core.columns import Columns
from streams.core.device_names import MANY, DeviceKeys, DeviceNames
from streams.core.index import ABSENT, Index
from streams.core.placement import shards_of
from streams.core.readings import (
    Bool,
    Int32,
    Int64,
    Labels,
    Readings,
    concat_readings,
    names_at,
)
from streams.core.windows import Window

NEVER = np.iinfo(np.int64).max
FREE = -1
"""The shard of an index that is free."""
_METRIC_BITS = 16
_MAX_METRICS = 1 << _METRIC_BITS

_DEVICE: dict[str, tuple[Any, Any]] = {
    "shard": (np.int32, 0),
    "tenant": (np.int32, 0),
    "max_t_ms": (np.int64, -1),
    "log_ms": (np.int64, -1),
    "deadline_ms": (np.int64, NEVER),
    **dict.fromkeys(COLUMNS, (np.int32, 0)),
}
"""``max_t_ms`` is the greatest event time shown, ``log_ms`` the log time of the last record,
``deadline_ms`` the log time at which the next idle rule fires; then one counter per class, which
is widened to int64 before it would not do."""
_NARROW = int(np.iinfo(np.int32).max)
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

    def codes(self, labels: Labels, limit: int | None = None) -> Int32:
        """Return the integer of each row; ``ABSENT`` for a name beyond *limit* names."""
        if limit is None or len(self.values) + len(labels.values) <= limit:
            remap = np.asarray([self.code(name) for name in labels.values], np.int32)
            return remap[labels.codes] if len(remap) else np.empty(0, np.int32)
        names = labels.to_list()
        return np.asarray([self._within(name, limit) for name in names], np.int32)

    def _within(self, name: str, limit: int) -> int:
        return self.code(name) if name in self._codes or len(self.values) < limit else ABSENT


class Registry:
    """Names to indices and back. Indices are private to one run: snapshots carry names.

    New names are taken in the order of their rows, so that whom a limit refuses does not depend
    on the batching.

    A device may be away: known, and counted, but kept elsewhere. Whoever keeps it is asked through
    ``recall`` before a name gets an index anew. Indices that are free are used again.

    :param max_devices: per shard, with those away; further ones get no index.
    :param max_metrics: per device; further ones get no series. All devices of the partition
        together have at most 2**16 names of metrics.
    :param many: see :class:`~streams.core.device_names.DeviceNames`.
    """

    def __init__(
        self,
        shards: int,
        definitions: Sequence[Window],
        max_devices: int,
        max_metrics: int,
        many: int = MANY,
    ) -> None:
        self._shards = shards
        self.away = np.zeros(shards, np.int64)
        """Of each shard: how many devices are known but not here."""
        self.recall: Callable[[Sequence[tuple[str, str]]], object] | None = None
        """Called with tenants and names that are not here: restores those that are away."""
        self._free_devices: list[int] = []
        self._free_series = np.empty(0, np.int32)
        self._nobody = ABSENT
        self._most_counted: int | None = 0
        """No counter is beyond it; ``None`` once they are wide."""
        self._max_devices, self._max_metrics = max_devices, max_metrics
        self._in_shard = np.zeros(shards, np.int64)
        self._series_of = Columns({"n": (np.int32, 0)})
        self._definitions = definitions
        self.devices = Columns(_DEVICE)
        self.series = Columns(_SERIES)
        self._names = DeviceNames(many)
        self._tenants, self._metrics, self._sites = _Names(), _Names(), _Names()
        self._series_index = Index(self._keys_of_series)
        self._members = np.empty((0, len(definitions)), np.bool_)
        self._listed: Sequence[str] = ()
        self._listed_tenant = ""
        self._of_listed: Int32 = np.empty(0, np.int32)

    @property
    def names(self) -> Sequence[str]:
        """Of each device."""
        return self._names.values

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
        if (devices == ABSENT).any():  # Who was refused has no integer, and keeps its name.
            return concat_readings(parts)
        return concat_readings(parts, device=Labels(devices, self.names))

    def intern_devices(self, readings: Readings) -> Int32:
        """Return the device of each row, registering new ones; ``ABSENT`` where a shard is full."""
        if readings.device.values is self.names:
            return readings.device.codes
        return self._intern(readings)

    def _intern(self, readings: Readings) -> Int32:
        tenants, devices = readings.tenant, readings.device
        found: Int32 = np.full(len(devices), ABSENT, np.int32)
        of_value: Int32 | None = None
        if len(tenants.values) == 1:
            of_value = self._of_values(tenants.values[0], devices.values)
            found = of_value[devices.codes]
        rest = np.flatnonzero(found == ABSENT)
        if not len(rest):
            return found
        width = max(1, len(devices.values))
        pair = tenants.codes[rest].astype(np.int64) * width + devices.codes[rest]
        unique, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        of_tenants, of_devices = np.divmod(unique, width)
        keys = DeviceKeys(
            names_at(tenants.values, of_tenants), names_at(devices.values, of_devices)
        )
        if self.recall is not None and self.away.any():
            found_now = self._names.find_all(keys)
            self.recall(keys.take(np.flatnonzero(found_now == ABSENT)))
        order = np.argsort(first)
        each = np.empty(len(unique), np.int32)
        each[order] = self._admit(keys.take(order))
        found[rest] = each[inverse]
        if of_value is not None:
            of_value[devices.codes[rest]] = found[rest]
        return found

    def _of_values(self, tenant: str, values: Sequence[str]) -> Int32:
        """Return the device of each value of a dictionary, ``ABSENT`` where it is not here.

        A list is remembered (see :class:`Labels`): then only what it has grown by is looked up.
        """
        if isinstance(values, tuple):
            return self._names.find(tenant, values)
        if self._listed is not values or self._listed_tenant != tenant:
            self._listed, self._listed_tenant = values, tenant
            self._of_listed = np.empty(0, np.int32)
        more = self._names.find(tenant, values[len(self._of_listed) :])
        if len(more):
            self._of_listed = np.concatenate([self._of_listed, more])
        return self._of_listed

    def find(self, tenant: str, device: str) -> int:
        """Return the index of a device, ``ABSENT`` if it is not here."""
        return int(self._names.find(tenant, [device])[0])

    def _admit(self, keys: DeviceKeys) -> Int32:
        """Return the index of each of distinct devices, registering new ones where there is room.

        :param keys: in the order in which they are let in.
        """
        found = self._names.find_all(keys)
        new = np.flatnonzero(found == ABSENT)
        fresh = keys if len(new) == len(keys) else keys.take(new)
        shard = shards_of(fresh, self._shards)
        room = self._max_devices - self._in_shard - self.away
        let_in = _nth_of(shard) < room[shard]
        if not let_in.all():
            new, shard, fresh = new[let_in], shard[let_in], fresh.take(np.flatnonzero(let_in))
        found[new] = self._register(fresh, shard)
        return found

    def keys_of(self, devices: Int64) -> DeviceKeys:
        """Return tenant and name of each device."""
        tenants = names_at(self.tenants, self.devices["tenant"][devices])
        return DeviceKeys(tenants, names_at(self.names, devices))

    def _register(self, keys: DeviceKeys, shard: Int32) -> Int32:
        """Give new devices an index each."""
        reused = min(len(keys), len(self._free_devices))
        again = [self._free_devices.pop() for _ in range(reused)]
        end = self.devices.n + len(keys) - reused
        made: Int32 = np.asarray([*again, *range(self.devices.n, end)], np.int32)
        self._names.put(keys, made)
        self.devices.grow_to(end)
        codes = {tenant: self._tenants.code(tenant) for tenant in dict.fromkeys(keys.tenants)}
        self.devices["tenant"][made] = [codes[tenant] for tenant in keys.tenants]
        self.devices["shard"][made] = shard
        np.add.at(self._in_shard, shard, 1)
        return made

    def count(self, column: str, device: Int32 | Int64) -> None:
        """Count a reading of one class for each device given; a device may be there often."""
        self.expect(len(device))
        counter = self.devices[column]
        np.add.at(counter, device, counter.dtype.type(1))

    def expect(self, counted: int) -> None:
        """Make sure that every counter may rise by so much."""
        if self._most_counted is None:
            return
        self._most_counted += counted
        if self._most_counted > _NARROW:
            greatest = max(int(self.devices[name].max(initial=0)) for name in COLUMNS)
            self._most_counted = greatest + counted
        if self._most_counted > _NARROW:
            self.devices.widen(COLUMNS, np.int64)
            self._most_counted = None

    def restore_devices(self, named: Sequence[Sequence[str]], shard: int) -> Int32:
        """Return the index of each device of a shard, registering new ones whatever the limit.

        :param named: tenant and name of each.
        """
        keys = DeviceKeys.of(named)
        found = self._names.find_all(keys)
        new = np.flatnonzero(found == ABSENT)
        shards = np.full(len(new), shard, np.int32)
        found[new] = self._register(keys.take(new), shards)
        return found

    def forget(self, devices: Int64) -> Bool:
        """Free the indices of devices and of their series.

        :returns: bool[series]: those that are free now.
        """
        reg, here = self.devices, np.zeros(self.devices.n, np.bool_)
        here[devices] = True
        listed = self._of_listed
        listed[(listed != ABSENT) & here[listed]] = ABSENT
        gone: Bool = here[self.series["device"]]
        self._names.forget(self.keys_of(devices), devices)
        np.subtract.at(self._in_shard, reg["shard"][devices], 1)
        reg.reset(devices)
        reg["shard"][devices] = FREE
        self._series_of.reset(devices)
        free = devices.tolist()
        if self._nobody == ABSENT:
            # A series that is free belongs to a device that never is anybody.
            self._nobody = free.pop()
        self._free_devices += free
        freed = np.flatnonzero(gone).astype(np.int32)
        self.series.reset(freed)
        self.series["device"][freed] = self._nobody
        self._free_series = np.concatenate([self._free_series, freed])
        used = np.flatnonzero(self.series["device"] != self._nobody)
        self._series_index.replace(used.astype(np.int32))
        return gone

    def _keys_of_series(self, series: Int32) -> Int64:
        owner = self.series["device"][series].astype(np.int64)
        keys: Int64 = (owner << _METRIC_BITS) | self.series["metric"][series]
        return keys

    def intern_series(self, device: Int32, metric: Labels, *, limited: bool = True) -> Int32:
        """Return the series of each row, registering new ones.

        :param limited: whether a series beyond a limit gets ``ABSENT``; not so at a restore.
        """
        metrics = self._metrics.codes(metric, _MAX_METRICS)
        keys = (device.astype(np.int64) << _METRIC_BITS) | metrics
        found = self._series_index.find(keys)
        missing = np.flatnonzero((found == ABSENT) & (metrics != ABSENT))
        if len(missing):
            fresh, first, inverse = np.unique(keys[missing], return_index=True, return_inverse=True)
            owner, kind = fresh >> _METRIC_BITS, fresh & (_MAX_METRICS - 1)
            kept = self._room(owner, np.argsort(first), limited)
            slots = np.full(len(fresh), ABSENT, np.int32)
            made = slots[kept] = self._place_series(int(kept.sum()))
            self.series["device"][made], self.series["metric"][made] = owner[kept], kind[kept]
            self._series_index.add(made)
            found[missing] = slots[inverse]
        return found

    def _place_series(self, n: int) -> Int32:
        """Return indices of series that nobody has."""
        left = max(0, len(self._free_series) - n)
        again, self._free_series = self._free_series[left:], self._free_series[:left]
        end = self.series.n + n - len(again)
        added = np.arange(self.series.n, end, dtype=np.int32)
        self.series.grow_to(end)
        return np.concatenate([again, added])

    def _room(self, owner: Int64, order: Int64, limited: bool) -> Bool:
        """Return which new series have room, taken in some order, and count them."""
        self._series_of.grow_to(self.devices.n)
        held = self._series_of["n"]
        np.add.at(held, owner, 1)
        kept = np.ones(len(owner), np.bool_)
        if limited and (held[owner] > self._max_metrics).any():
            np.subtract.at(held, owner, 1)
            for at in order.tolist():
                kept[at] = held[owner[at]] < self._max_metrics
                held[owner[at]] += kept[at]
        return kept

    def members(self, series: Int32) -> Bool:
        """Return bool[n, definitions]: which definitions apply to each series."""
        known = len(self._members)
        if known < len(self.metrics):
            more = [[d.applies_to(m) for d in self._definitions] for m in self.metrics[known:]]
            width = len(self._definitions)
            added = np.asarray(more, np.bool_).reshape(len(more), width)
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


def _nth_of(groups: Int32) -> Int64:
    """Return how many rows of its own group lie before each row."""
    order = np.argsort(groups, kind="stable")
    grouped = groups[order]
    nth = np.empty(len(groups), np.int64)
    nth[order] = np.arange(len(groups)) - np.searchsorted(grouped, grouped)
    return nth

"""Which device has which name: dicts while devices are few, a :class:`NameTable` when many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from streams.core.index import ABSENT
from streams.core.name_table import Behind, NameTable
from streams.core.readings import Int32, Int64

MANY = 65_536
"""Devices beyond which their names no longer lie in the caches of a core anyway."""


@dataclass(frozen=True, slots=True)
class DeviceKeys(Sequence[tuple[str, str]]):
    """Tenant and name of some devices, in columns."""

    tenants: Sequence[str]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, at: slice) -> DeviceKeys: ...
    def __getitem__(self, at: int | slice) -> tuple[str, str] | DeviceKeys:
        if isinstance(at, slice):
            return DeviceKeys(self.tenants[at], self.names[at])
        return self.tenants[at], self.names[at]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.tenants, self.names, strict=True)

    @staticmethod
    def of(pairs: Sequence[Sequence[str]]) -> DeviceKeys:
        """Return pairs as columns."""
        if isinstance(pairs, DeviceKeys):
            return pairs
        return DeviceKeys([tenant for tenant, _ in pairs], [name for _, name in pairs])

    def take(self, at: Int64) -> DeviceKeys:
        """Select devices by index."""
        places = at.tolist()
        return DeviceKeys([self.tenants[i] for i in places], [self.names[i] for i in places])


class DeviceNames:
    """Tenants and names of the devices of one partition, by the caller's dense index.

    :param many: devices beyond which names are kept in a table, for good.
    """

    def __init__(self, many: int = MANY) -> None:
        self._many = many
        self._codes: dict[str, int] = {}
        self._of: dict[str, dict[str, int]] = {}
        self._listed: list[str] = []
        self._table: NameTable | None = None
        self.values: Sequence[str] = self._listed
        """The name of each index, empty where it is free."""

    def find(self, tenant: str, names: Sequence[str]) -> Int32:
        """Return the index of each of a tenant's devices, ``ABSENT`` where it is not here."""
        if self._table is not None:
            begin = self._begin(tenant)
            return self._table.find([begin + name.encode() for name in names])
        known = self._of.get(tenant, {})
        return np.asarray([known.get(name, ABSENT) for name in names], np.int32)

    def find_all(self, keys: DeviceKeys) -> Int32:
        """Return the index of each device, ``ABSENT`` as above."""
        if self._table is not None:
            return self._table.find(self._numbered(keys))
        found = [self._of.get(tenant, {}).get(name, ABSENT) for tenant, name in keys]
        return np.asarray(found, np.int32)

    def put(self, keys: DeviceKeys, indices: Int32) -> None:
        """Give indices that are free, or the next ones, to devices that are not here."""
        for tenant in dict.fromkeys(keys.tenants):
            self._codes.setdefault(tenant, len(self._codes))
        if self._table is not None:
            self._table.put(self._numbered(keys), indices)
            return
        self._listed += [""] * (int(indices.max(initial=-1)) + 1 - len(self._listed))
        for (tenant, name), index in zip(keys, indices.tolist(), strict=True):
            self._of.setdefault(tenant, {})[name] = index
            self._listed[index] = name
        if len(self._listed) > self._many:
            self._tabulate()

    def forget(self, keys: DeviceKeys, indices: Int64) -> None:
        """Free the indices of devices."""
        if self._table is not None:
            self._table.free(indices)
            return
        for (tenant, name), index in zip(keys, indices.tolist(), strict=True):
            del self._of[tenant][name]
            self._listed[index] = ""

    def _tabulate(self) -> None:
        table = NameTable()
        for tenant, known in self._of.items():
            begin = self._begin(tenant)
            keys = [begin + name.encode() for name in known]
            table.put(keys, np.fromiter(known.values(), np.int32, len(known)))
        self._table, self.values = table, Behind(table)
        self._of, self._listed = {}, []

    def _numbered(self, keys: DeviceKeys) -> list[bytes]:
        """Return what a table knows devices by."""
        begins = {tenant: self._begin(tenant) for tenant in set(keys.tenants)}
        return [begins[tenant] + name.encode() for tenant, name in keys]

    def _begin(self, tenant: str) -> bytes:
        # A number has no slash: so the first one ends it, whatever is in the names.
        return b"%d/" % self._codes.get(tenant, ABSENT)

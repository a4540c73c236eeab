"""Who sent a record of ``readings``: tenant and device by its key, the site by a header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.adapters.rows import MAX_NAME, check_name
from streams.core.device_names import MANY
from streams.core.index import ABSENT
from streams.core.name_table import Behind, NameTable
from streams.core.readings import Int32, Labels
from streams.errors import DecodeError
from streams.ports import LogRecord, header

SITE = "hw-site"
DEFAULT_SITE = "default"
_MAX_KNOWN = 262_144

Owner = tuple[str, str]
"""Tenant and device."""


class RecordNames:
    """Checks names once and numbers them, up to a bound."""

    def __init__(self) -> None:
        self._sites: dict[bytes, str] = {}
        self._begin()

    def _begin(self) -> None:
        """Number anew; the names of before stay with the labels that were given out."""
        self._codes: dict[bytes | None, int] = {}
        self._tenant: list[str] = []
        self._listed: list[str] = []
        self._tenants: set[str] = set()
        self._table: NameTable | None = None
        self._device: Sequence[str] = self._listed

    def _learn(self, keys: Sequence[bytes | None]) -> None:
        """Number new keys, which are distinct.

        :raises DecodeError: as :meth:`owner`; then none of them is numbered.
        """
        end = len(self._device)
        if self._table is not None:
            if not self._are_of_one_tenant(keys):
                self._owners(keys)
            named = [key for key in keys if key is not None]
            self._table.put(named, np.arange(end, end + len(named), dtype=np.int32))
            return
        owners = self._owners(keys)
        self._codes.update(zip(keys, range(end, end + len(keys)), strict=True))
        self._tenant += [tenant for tenant, _ in owners]
        self._listed += [device for _, device in owners]
        if len(self._listed) > MANY:
            self._tabulate()

    def _owners(self, keys: Sequence[bytes | None]) -> list[Owner]:
        """Return tenants and devices, and note the tenants."""
        owners = _plain_owners(keys) or [_owner(key) for key in keys]
        self._tenants.update({tenant for tenant, _ in owners})
        return owners

    def _are_of_one_tenant(self, keys: Sequence[bytes | None]) -> bool:
        """Whether all keys name devices of the only tenant so far: looked at as one text.

        False says nothing.
        """
        if len(self._tenants) != 1 or None in keys:
            return False
        named = [key for key in keys if key is not None]
        begin = f"{next(iter(self._tenants))}/".encode()
        # Each begins in a line of its own, with the tenant: so none lends bytes to its neighbour.
        lines = b"\n" + b"\n".join(named)
        lengths = np.fromiter(map(len, named), np.int64, len(named)) - len(begin)
        if not lines.count(b"\n") == lines.count(b"\n" + begin) == len(named):
            return False
        if lengths.min() < 1 or lengths.max() > MAX_NAME or lines.count(b"/") != len(named):
            return False
        try:
            return lines.decode().replace("\n", "").isprintable()
        except UnicodeDecodeError:
            return False

    def _tabulate(self) -> None:
        named = [key for key in self._codes if key is not None]
        self._table = NameTable()
        self._table.put(named, np.arange(len(named), dtype=np.int32))
        self._device = Behind(self._table)
        self._codes, self._tenant, self._listed = {}, [], []

    def owner(self, key: bytes | None) -> Owner:
        """Return what a key names.

        :raises DecodeError: ``bad-key`` if it is missing or not ``tenant/device`` in UTF-8.
        """
        if self._table is not None:
            return _owner(key)
        if key not in self._codes:
            self._learn([key])
            return self.owner(key)
        code = self._codes[key]
        return self._tenant[code], self._listed[code]

    def site(self, record: LogRecord) -> str:
        """Return the site of a record.

        :raises DecodeError: ``bad-name`` if the header is no name in UTF-8.
        """
        given = header(record, SITE)
        if given is None:
            return DEFAULT_SITE
        found = self._sites.get(given)
        if found is None:
            found = _site(given)
            if len(self._sites) >= _MAX_KNOWN:
                self._sites.clear()
            self._sites[given] = found
        return found

    def labels(self, keys: Sequence[bytes | None]) -> tuple[Labels, Labels]:
        """Return tenants and devices of *n* keys.

        With one tenant, the dictionary of devices is a list that grows at its end from call to
        call, so that who takes it can remember what its names are.

        :raises DecodeError: as :meth:`owner`.
        """
        code = self._coded(keys)
        if len(self._tenants) == 1:
            # Then distinct keys are distinct devices.
            tenant = next(iter(self._tenants))
            return Labels.constant(tenant, len(keys)), Labels(code, self._device)
        _, first, at = np.unique(code, return_index=True, return_inverse=True)
        owners = [(keys[i] or b"").decode().partition("/") for i in first.tolist()]
        tenants = Labels.of(tenant for tenant, _, _ in owners)
        devices = Labels.of(device for _, _, device in owners)
        return tenants.take(at), devices.take(at)

    def _coded(self, keys: Sequence[bytes | None]) -> Int32:
        """Return the number of each key."""
        if self._table is not None:
            return self._coded_by_table(self._table, keys)
        try:
            return np.fromiter(map(self._codes.__getitem__, keys), np.int32, len(keys))
        except KeyError:
            fresh = list(dict.fromkeys(key for key in keys if key not in self._codes))
        self._learn(fresh)
        return self._coded(keys)

    def _coded_by_table(self, table: NameTable, keys: Sequence[bytes | None]) -> Int32:
        named = [key or b"" for key in keys]
        code = table.find(named)
        fresh = list(dict.fromkeys(keys[i] for i in np.flatnonzero(code == ABSENT).tolist()))
        if fresh and len(table) + len(fresh) > _MAX_KNOWN:
            self._begin()
            return self._coded(keys)
        if fresh:
            self._learn(fresh)
            code = table.find(named)
        return code

    def names_a_device(self, key: bytes | None) -> bool:
        """Whether :meth:`owner` takes this key."""
        try:
            self.owner(key)
        except DecodeError:
            return False
        return True


def _plain_owners(keys: Sequence[bytes | None]) -> list[Owner] | None:
    """Return what many keys name, ``None`` if any may be refused: looked at all at once."""
    try:
        split = [key.decode().partition("/") for key in keys if key is not None]
    except UnicodeDecodeError:
        return None
    tenants, slashes, devices = zip(*split, strict=True) if split else ((), (), ())
    names = [*set(tenants), *devices]
    if len(split) < len(keys) or not all(slashes) or not all(names):
        return None
    joined = "".join(names)
    if "/" in joined or not joined.isprintable() or max(map(len, names)) > MAX_NAME:
        return None
    one = {tenant: tenant for tenant in tenants}
    return [(one[tenant], device) for tenant, device in zip(tenants, devices, strict=True)]


def _owner(key: bytes | None) -> Owner:
    if key is None:
        raise DecodeError("bad-key", "the record has no key; expected tenant/device")
    tenant, slash, device = _text(key, "bad-key", "the key").partition("/")
    if not slash:
        raise DecodeError("bad-key", f"the key is {tenant[:80]!r}; expected tenant/device")
    try:
        return check_name("tenant", tenant), check_name("device", device)
    except DecodeError as error:
        raise DecodeError("bad-key", f"{error.detail}; expected tenant/device") from error


def _site(given: bytes) -> str:
    return check_name("site", _text(given, "bad-name", f"the header {SITE}"))


def _text(given: bytes, reason: str, what: str) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(reason, f"{what} is {given[:80]!r}, which is not UTF-8") from error

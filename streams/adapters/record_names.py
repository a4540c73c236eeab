"""Who sent a record of ``readings``: tenant and device by its key, the site by a header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.adapters.rows import check_name
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
        """Number anew; the lists of before stay with the labels that were given out."""
        self._codes: dict[bytes | None, int] = {}
        self._tenant: list[str] = []
        self._device: list[str] = []
        self._tenants: set[str] = set()

    def _learn(self, key: bytes | None) -> None:
        tenant, device = _owner(key)
        self._codes[key] = len(self._device)
        self._tenant.append(tenant)
        self._device.append(device)
        self._tenants.add(tenant)

    def owner(self, key: bytes | None) -> Owner:
        """Return what a key names.

        :raises DecodeError: ``bad-key`` if it is missing or not ``tenant/device`` in UTF-8.
        """
        if key not in self._codes:
            if len(self._codes) >= _MAX_KNOWN:
                self._begin()
            self._learn(key)
        code = self._codes[key]
        return self._tenant[code], self._device[code]

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
        distinct, at = np.unique(code, return_inverse=True)
        tenants = Labels.of(self._tenant[c] for c in distinct.tolist())
        devices = Labels.of(self._device[c] for c in distinct.tolist())
        return tenants.take(at), devices.take(at)

    def _coded(self, keys: Sequence[bytes | None]) -> Int32:
        try:
            return np.fromiter(map(self._codes.__getitem__, keys), np.int32, len(keys))
        except KeyError:
            fresh = dict.fromkeys(key for key in keys if key not in self._codes)
        if len(self._codes) + len(fresh) > _MAX_KNOWN:
            self._begin()
            fresh = dict.fromkeys(keys)
        for key in fresh:
            self._learn(key)
        return np.fromiter(map(self._codes.__getitem__, keys), np.int32, len(keys))

    def names_a_device(self, key: bytes | None) -> bool:
        """Whether :meth:`owner` takes this key."""
        try:
            self.owner(key)
        except DecodeError:
            return False
        return True


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

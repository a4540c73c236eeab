"""Who sent a record of ``readings``: tenant and device by its key, the site by a header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.adapters.rows import check_name
from streams.core.readings import Labels
from streams.errors import DecodeError
from streams.ports import LogRecord, header

SITE = "hw-site"
DEFAULT_SITE = "default"
_MAX_KNOWN = 262_144

Owner = tuple[str, str]
"""Tenant and device."""


class RecordNames:
    """Checks names once and remembers them, up to a bound."""

    def __init__(self) -> None:
        self._tenant: dict[bytes | None, str] = {}
        self._device: dict[bytes | None, str] = {}
        self._tenants: set[str] = set()
        self._sites: dict[bytes, str] = {}

    def owner(self, key: bytes | None) -> Owner:
        """Return what a key names.

        :raises DecodeError: ``bad-key`` if it is missing or not ``tenant/device`` in UTF-8.
        """
        if key not in self._device:
            tenant, device = _owner(key)
            if len(self._device) >= _MAX_KNOWN:
                for known in (self._tenant, self._device, self._tenants):
                    known.clear()
            self._tenant[key], self._device[key] = tenant, device
            self._tenants.add(tenant)
        return self._tenant[key], self._device[key]

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
        """Return tenants and devices of *n* keys, in each dictionary only what *keys* name.

        :raises DecodeError: as :meth:`owner`.
        """
        distinct = dict.fromkeys(keys)
        codes = dict(zip(distinct, range(len(distinct)), strict=True))
        code = np.fromiter(map(codes.__getitem__, keys), np.int32, len(keys))
        try:
            devices = list(map(self._device.__getitem__, distinct))
        except KeyError:
            owners = [self.owner(key) for key in distinct]
            tenants, devices = [t for t, _ in owners], [d for _, d in owners]
            return Labels.of(tenants).take(code), Labels.of(devices).take(code)
        if len(self._tenants) == 1:
            # Then distinct keys are distinct devices.
            return Labels.constant(next(iter(self._tenants)), len(keys)), Labels(
                code, tuple(devices)
            )
        tenants = [self._tenant[key] for key in distinct]
        return Labels.of(tenants).take(code), Labels.of(devices).take(code)

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

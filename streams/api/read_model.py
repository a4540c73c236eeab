"""The newest state of every twin, followed from the compacted topic ``twin.state``."""

from __future__ import annotations

from typing import Any

import orjson
from prometheus_client import Gauge

from streams.api.follower import Follower
from streams.topics import TWIN_STATE

_TWINS = Gauge("headwater_api_twins", "Twins in the read model.")


class TwinStates(Follower):
    """Every twin's newest JSON, kept as bytes. :meth:`run` follows the topic until cancelled."""

    def __init__(self, bootstrap: str, partitions: int) -> None:
        super().__init__(TWIN_STATE, bootstrap, partitions)
        self._states: dict[str, bytes] = {}

    def get(self, tenant: str, device: str) -> bytes | None:
        """Return a twin's JSON; None if there is none."""
        return self._states.get(f"{tenant}/{device}")

    def sites(self, tenant: str, device: str) -> list[str]:
        """Return the sites that sync a device."""
        found = self.get(tenant, device)
        return [] if found is None else [str(site) for site in orjson.loads(found)["sites"]]

    def devices(self, tenant: str | None) -> list[dict[str, Any]]:
        """Return tenant and device of every twin (of one tenant), sorted."""
        keys = sorted(self._states)
        pairs = [key.partition("/") for key in keys]
        return [
            {"tenant": found, "device": device}
            for found, _, device in pairs
            if tenant in (None, found)
        ]

    def take(self, record: Any) -> None:
        """Take a state, unless it is an older one again."""
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._states.pop(key, None)
        elif not self._is_older(key, record.value):
            self._states[key] = record.value

    def taken(self) -> None:
        """Count."""
        _TWINS.set(len(self._states))

    def _is_older(self, key: str, value: bytes) -> bool:
        """Whether a replay wrote this again behind what is known."""
        known = self._states.get(key)
        if known is None:
            return False
        new, old = orjson.loads(value), orjson.loads(known)
        # A topic made anew begins at offset 0, later.
        return bool(new["offset"] < old["offset"] and new["updated_ms"] <= old["updated_ms"])

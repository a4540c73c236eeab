"""What edges say in ``losses`` of each device: what was measured, filtered and given up.

An entry may be there more than once: a batch was sent again, or an edge that was killed. A loss is
known by its place in the spool, a tally of the ring by its segment; of two tallies the greater
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streams.adapters.edge_windows import COUNTED, WindowLedger
from streams.ports import LogRecord

_SpoolOf = tuple[str, str, str]
"""Tenant, site, and the id of the spool: segments are numbered anew in a new one."""
OTHERS = "(others)"
"""Name of the devices beyond those that an entry counts by name."""


@dataclass(frozen=True, slots=True)
class EdgeCount:
    """What the edge of a site says of a device that it filters, or of which it gave readings up."""

    tenant: str
    site: str
    device: str
    up: int | None
    """Readings that were to go up, as the edge has counted; None if it does not filter the device,
    and does not count."""
    filtered: int
    given_up: int


class EdgeLedger:
    """Takes records of ``losses`` in any order."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[_SpoolOf, int], dict[str, Any]] = {}
        self._losses: dict[tuple[_SpoolOf, bytes], dict[str, Any]] = {}
        self._windows_lost: set[tuple[_SpoolOf, bytes]] = set()
        self.windows = WindowLedger()
        """What went into windows that edges compute."""

    def add(self, record: LogRecord) -> None:
        """Take a record; one that no edge wrote so is left out."""
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        spool = headers.get("hw-batch", "").split(".")[0]
        key = (headers.get("hw-tenant", ""), headers.get("hw-site", ""), spool)
        try:
            parsed = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            return
        for entry in parsed if isinstance(parsed, list) else [parsed]:
            if isinstance(entry, dict) and isinstance(entry.get("devices"), dict):
                self._take(key, entry)

    def _take(self, key: _SpoolOf, entry: dict[str, Any]) -> None:
        if entry.get("reason") == "filtered":
            place = key, int(entry["segment"])
            before = self._tallies.get(place)
            if before is None or _size(entry) > _size(before):
                self._tallies[place] = entry
        elif entry.get("reason") == COUNTED:
            self.windows.take(*key, entry)
        elif entry.get("lane") in ("readings", "windows"):
            said = orjson.dumps([entry.get(name) for name in ("reason", "segment", "places")])
            if entry["lane"] == "readings":
                self._losses[key, said] = entry
            elif (key, said) not in self._windows_lost:
                self._windows_lost.add((key, said))
                self.windows.given_up[key[:2]] += entry.get("readings") or 0

    def counts(self, tenant: str | None = None) -> list[EdgeCount]:
        """Return the counts of each device, by name.

        :param tenant: only this one; default all.
        """
        up: Counter[tuple[str, str, str]] = Counter()
        filtered: Counter[tuple[str, str, str]] = Counter()
        given_up: Counter[tuple[str, str, str]] = Counter()
        for ((owner, site, _), _), entry in self._tallies.items():
            _add(up, (owner, site), entry.get("up", {}), entry.get("other_up", 0))
            _add(filtered, (owner, site), entry["devices"], entry.get("other_devices", 0))
        for key, entry in self._losses.items():
            _add(given_up, key[0][:2], entry["devices"], entry.get("other_devices", 0))
        return [
            EdgeCount(*name, up.get(name), filtered[name], given_up[name])
            for name in sorted({*up, *filtered, *given_up})
            if tenant is None or name[0] == tenant
        ]


def held_against(
    edges: Sequence[EdgeCount], in_log: Mapping[tuple[str, str], int]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Hold what edges count against the log; return rows, and what does not hold.

    A reading that was sent twice is in the log twice, so more there is no contradiction.

    :param in_log: (tenant, device) -> readings in the log, of every class.
    """
    rows, problems = [], []
    for one in edges:
        there = in_log.get((one.tenant, one.device), 0)
        sent = there if one.up is None else one.up - one.given_up
        rows.append(
            {
                "tenant": one.tenant,
                "site": one.site,
                "device": one.device,
                "measured": sent + one.filtered + one.given_up,
                "sent": sent,
                "filtered": one.filtered,
                "given_up": one.given_up,
                "in_log": there,
            }
        )
        if sent > there and one.device != OTHERS:
            problems.append(
                f"{one.tenant}/{one.site}/{one.device}: {sent - there} readings that its edge "
                "measured are neither filtered, nor given up, nor in the log: do they wait at the "
                "edge (headwater edge status)?"
            )
    return rows, problems


def _size(entry: Mapping[str, Any]) -> tuple[int, int]:
    up = sum(entry.get("up", {}).values()) + entry.get("other_up", 0)
    return up + int(entry["readings"]), up


def _add(
    to: Counter[tuple[str, str, str]], site: tuple[str, str], devices: Any, others: int
) -> None:
    for name, count in devices.items():
        to[*site, name.removeprefix(f"{site[0]}/")] += count
    if others:
        to[*site, OTHERS] += others

"""What edges say in ``losses`` of the readings that went into their windows, held against results.

An entry says of each device how many readings its edge has put into the windows that begin in a
day, and how many of them are in windows that are still open. So the final results of the log have
at least the difference. They have no more than all, if nothing in them came to the edge later than
the entry knows. An entry may be there more than once, and is told anew as the windows grow: of one
device the one with more readings counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

COUNTED = "counted"
DAY_MS = 86_400_000
Cell = tuple[str, str, str, str, int]
"""Tenant, site, device, window, and the first millisecond of the day in which windows begin."""


@dataclass(frozen=True, slots=True)
class WindowCount:
    """What the edge of a site says of a device, a window and a day."""

    counted: int
    """Readings that went into the windows."""
    open: int
    """How many of them are in windows that are not closed."""
    oldest_ms: int
    newest_ms: int
    """When the edge received them; the oldest of all devices that it told of at once."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the final results of an edge say of such a cell."""

    count: int
    newest_ms: int
    """The latest receipt of a reading inside."""


class WindowLedger:
    """Takes entries of ``losses`` in any order."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Cell], WindowCount] = {}
        self.given_up: Counter[tuple[str, str]] = Counter()
        """Tenant and site -> results that went from the spool unsent."""

    def take(self, tenant: str, site: str, spool: str, entry: Mapping[str, Any]) -> None:
        """Take an entry of the reason ``counted``."""
        is_open, newest = entry.get("open", {}), entry.get("newest_ms", {})
        for name, counted in entry["devices"].items():
            device = name.removeprefix(f"{tenant}/")
            cell = (tenant, site, device, str(entry["window"]), int(entry["start_ms"]))
            said = WindowCount(
                counted, is_open.get(name, 0), int(entry["from_ms"] or 0), newest.get(name, 0)
            )
            known = self._found.get((spool, cell))
            if known is None or (said.counted, -said.open) > (known.counted, -known.open):
                self._found[spool, cell] = said

    def counts(self, tenant: str | None = None) -> dict[Cell, WindowCount]:
        """Return what was said last of each cell; of several spools of a site, the sums.

        :param tenant: only this one; default all.
        """
        found: dict[Cell, WindowCount] = {}
        for (_, cell), said in self._found.items():
            if tenant is not None and cell[0] != tenant:
                continue
            known = found.get(cell)
            found[cell] = said if known is None else _sum(known, said)
        return found


def _sum(one: WindowCount, other: WindowCount) -> WindowCount:
    return WindowCount(
        one.counted + other.counted,
        one.open + other.open,
        min(one.oldest_ms, other.oldest_ms),
        max(one.newest_ms, other.newest_ms),
    )


def held_against_results(
    counts: Mapping[Cell, WindowCount],
    told: Mapping[Cell, Told],
    given_up: Mapping[tuple[str, str], int],
    begins_ms: int = 0,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Hold what edges count against their results; return rows per device and window, and what
    does not hold.

    :param given_up: (tenant, site) -> results that the edge gave up, as its ledger says: there,
        fewer readings in the log are no contradiction.
    :param begins_ms: results from before this time may have left the log: days of which something
        was received earlier are left out.
    """
    rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    problems: list[str] = []
    for cell, said in sorted(counts.items()):
        if said.oldest_ms <= begins_ms:
            continue
        there = told.get(cell, Told(0, 0))
        row = rows.setdefault(cell[:4], _row(*cell[:4], given_up.get(cell[:2], 0)))
        row["counted"] += said.counted
        row["open"] += said.open
        row["in_log"] += there.count
        closed = said.counted - said.open
        if there.count < closed and not row["results_given_up"]:
            problems.append(
                f"{_name(cell)}: its edge closed windows with {closed} readings, and the log has "
                f"{there.count} of them: do they wait at the edge (headwater edge status)?"
            )
        elif there.count > said.counted and there.newest_ms <= said.newest_ms:
            problems.append(
                f"{_name(cell)}: its edge put {said.counted} readings into windows, and the "
                f"results in the log have {there.count}"
            )
    return list(rows.values()), problems


def told_of(rows: Iterable[tuple[Any, ...]]) -> dict[Cell, Told]:
    """Return cells from rows of tenant, site, device, window, day, count and newest receipt."""
    return {
        (tenant, site, device, window, day): Told(count, newest_ms)
        for tenant, site, device, window, day, count, newest_ms in rows
    }


def _row(tenant: str, site: str, device: str, window: str, given_up: int) -> dict[str, Any]:
    names = {"tenant": tenant, "site": site, "device": device, "window": window}
    return {**names, "counted": 0, "open": 0, "in_log": 0, "results_given_up": given_up}


def _name(cell: Cell) -> str:
    tenant, site, device, window, day_ms = cell
    day = datetime.fromtimestamp(day_ms / 1000, UTC)
    return f"{tenant}/{site}/{device}, windows {window} that begin on {day:%Y-%m-%d}"

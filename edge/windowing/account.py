"""How many readings went into the windows of an edge: what an audit holds against the log. Pure.

Counted row by row from the verdicts, so apart from what the windows themselves say. It is stored
with them, so a crash counts nothing twice. Of each window and day, the first 256 devices are
counted by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.spool.losses import MAX_DEVICES, Loss
from streams.adapters.edge_windows import COUNTED, DAY_MS
from streams.core.classes import Class
from streams.core.engine import Folded, StreamEngine
from streams.core.readings import ELSEWHERE, Int64
from streams.core.tumbling import TumblingOperator
from streams.core.windows import Calendar, Tumbling

_MAX_DAYS = 4
"""Days of one window that are counted; older ones than these are counted no more."""
_NONE = -(1 << 62)
_NOTHING = (-1, -1)


@dataclass(slots=True)
class _Cell:
    """A device in the windows of a day."""

    counted: int = 0
    oldest_ms: int = 1 << 62
    newest_ms: int = 0
    """Receipt of what was counted."""
    told: tuple[int, int] = _NOTHING
    """What the ledger was told last: counted, and of these in windows that are open."""


_Day = dict[str, _Cell]
"""``tenant/device`` -> what was counted of a window in a day."""


class Account:
    """Counts for the windows of an engine that follow each other: tumbling ones, and calendar's.

    Windows are in the day in which they begin.
    """

    def __init__(self, engine: StreamEngine) -> None:
        self._engine = engine
        self._windows = [
            (place, definition, operator)
            for place, (definition, operator) in enumerate(
                zip(engine.definitions, engine.operators, strict=True)
            )
            if isinstance(definition, Tumbling | Calendar)
            and isinstance(operator, TumblingOperator)
        ]
        self._days: dict[str, dict[int, _Day]] = {d.name: {} for _, d, _ in self._windows}
        self._since: dict[str, int] = dict.fromkeys(self._days, _NONE)
        """The first day that is counted."""

    def count(self, folded: Folded) -> None:
        """Count what a batch brought."""
        readings = folded.rows.readings
        taken = (folded.verdict == Class.ACCEPTED) & np.isfinite(readings.value)
        taken &= readings.quality & ELSEWHERE == 0
        if not taken.any():
            return
        names = readings.metric.values
        for place, definition, _ in self._windows:
            applies = np.asarray([definition.applies_to(name) for name in names], np.bool_)
            mine = taken & applies[readings.metric.codes]
            if folded.late is not None:
                mine &= ~folded.late[:, place]
            rows = np.flatnonzero(mine)
            if not len(rows):
                continue
            day = definition.start_of(readings.t_ms[rows]) // DAY_MS
            of = self._days[definition.name]
            for number, some in _split(day, rows):
                if number >= self._since[definition.name]:
                    self._add(of.setdefault(number, {}), folded, some)
            self._bound(definition.name)

    def _add(self, cells: _Day, folded: Folded, rows: Int64) -> None:
        readings = folded.rows.readings
        for code, mine in _split(readings.device.codes[rows].astype(np.int64), rows):
            name = f"{readings.tenant[int(mine[0])]}/{readings.device.values[code]}"
            cell = cells.get(name)
            if cell is None:
                if len(cells) >= MAX_DEVICES:
                    continue
                cell = cells[name] = _Cell()
            received_ms = readings.received_ms[mine]
            cell.counted += len(mine)
            cell.oldest_ms = min(cell.oldest_ms, int(received_ms.min()))
            cell.newest_ms = max(cell.newest_ms, int(received_ms.max()))

    def _bound(self, window: str) -> None:
        of = self._days[window]
        while len(of) > _MAX_DAYS:
            oldest = min(of)
            del of[oldest]
            self._since[window] = oldest + 1

    # -- what is told ----------------------------------------------------------------------------

    def untold(self, now_ms: int) -> list[Loss]:
        """Return entries of the ledger about what has changed since the last call.

        To be called when the results of all that was counted are in the spool. If the entries do
        not get there, see :meth:`retell`.
        """
        return [
            self._entry(definition.name, day, cells, is_open, now_ms)
            for _, definition, operator in self._windows
            for is_open in [self._open(operator)]
            for day, cells in sorted(self._days[definition.name].items())
            if any(
                cell.told != (cell.counted, is_open.get((name, day), 0))
                for name, cell in cells.items()
            )
        ]

    def retell(self) -> None:
        """Note that what was told last is lost."""
        for of in self._days.values():
            for cells in of.values():
                for cell in cells.values():
                    cell.told = _NOTHING

    def _entry(
        self, window: str, day: int, cells: _Day, is_open: dict[tuple[str, int], int], now_ms: int
    ) -> Loss:
        changed: _Day = {}
        for name, cell in cells.items():
            says = cell.counted, is_open.get((name, day), 0)
            if cell.told != says:
                cell.told = says
                changed[name] = cell
        return Loss(
            lane="ring",
            reason=COUNTED,
            at_ms=now_ms,
            segment=0,
            places=(),
            readings=sum(cell.counted for cell in changed.values()),
            from_ms=min(cell.oldest_ms for cell in changed.values()),
            to_ms=max(cell.newest_ms for cell in changed.values()),
            devices={name: cell.counted for name, cell in changed.items()},
            window=window,
            start_ms=day * DAY_MS,
            open={name: cell.told[1] for name, cell in changed.items() if cell.told[1]},
            newest_ms={name: cell.newest_ms for name, cell in changed.items()},
        )

    def _open(self, operator: TumblingOperator) -> dict[tuple[str, int], int]:
        """Return how many readings are in open windows, by device and day."""
        columns = operator.held.columns
        slots = np.flatnonzero(~columns["closed"])
        found: dict[tuple[str, int], int] = {}
        devices, counts = columns["device"][slots], columns["count"][slots]
        days = columns["start_ms"][slots] // DAY_MS
        keys = self._engine.registry.keys_of(devices.astype(np.int64))
        for (tenant, device), day, count in zip(keys, days.tolist(), counts.tolist(), strict=True):
            cell = f"{tenant}/{device}", day
            found[cell] = found.get(cell, 0) + count
        return found

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> list[Any]:
        """Return what a start goes on with."""
        return [
            [
                definition.name,
                definition.written,
                self._since[definition.name],
                [
                    [day, name, cell.counted, cell.oldest_ms, cell.newest_ms]
                    for day, cells in self._days[definition.name].items()
                    for name, cell in cells.items()
                ],
            ]
            for _, definition, _ in self._windows
        ]

    def restore(self, state: Sequence[Any]) -> None:
        """Take what :meth:`state` has returned; all of it is told anew.

        A window that is defined otherwise by now is counted from the day after: until then the log
        has results of both.
        """
        written = {definition.name: definition.written for _, definition, _ in self._windows}
        for window, as_it_was, since, rows in state:
            if window not in written:
                continue
            if written[window] != as_it_was:
                newest = max((day for day, *_ in rows), default=since - 1)
                self._since[window] = max(since, newest + 1)
                continue
            self._since[window] = since
            for day, name, counted, oldest_ms, newest_ms in rows:
                cells = self._days[window].setdefault(day, {})
                cells[name] = _Cell(counted, oldest_ms, newest_ms)


def _split(codes: Int64, rows: Int64) -> Iterator[tuple[int, Int64]]:
    """Give each code, and the rows that have it."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    for some in np.split(order, cuts):
        yield int(codes[some[0]]), rows[some]

"""What a window keeps of its readings, and what it says of them.

Values are added in arrival order directly into the columns (``ufunc.at``), never by partial
sums of a batch, so that a result has the same bits however the readings are batched. The second
moment is taken around a pane's first value: with sums of squares around zero, the standard
deviation of 1e9 +- 0.01 comes out as 43.8 instead of 0.0099. Panes that windows share are merged
in order of time by Chan's formula (Chan, Golub, LeVeque 1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.core.columns import Columns
from streams.core.kept import States, Steps
from streams.core.readings import Bool, Float64, Int32, Int64
from streams.core.sketches import Sketches
from streams.core.windows import (
    DEFAULT_MAX_POINTS,
    DISTINCT,
    KEEPING,
    ORDERED,
    TIME_WEIGHTED_MEAN,
    TRENDS,
)

Arrays = dict[str, np.ndarray[Any, Any]]
Spec = dict[str, tuple[Any, Any]]

_BASE: Spec = {
    "site": (np.int32, 0),
    "count": (np.int64, 0),
    "sum": (np.float64, 0.0),
    "min": (np.float64, np.inf),
    "max": (np.float64, -np.inf),
    "shift": (np.float64, 0.0),
    "s1": (np.float64, 0.0),
    "s2": (np.float64, 0.0),
    "received_ms": (np.int64, -1),
    "kafka_ms": (np.int64, -1),
}
_ENDS: Spec = {
    "first_ms": (np.int64, np.iinfo(np.int64).max),
    "first": (np.float64, np.nan),
    "last_ms": (np.int64, -1),
    "last": (np.float64, np.nan),
}
_TREND: Spec = {
    "t0_ms": (np.int64, 0),
    "t1": (np.float64, 0.0),
    "t2": (np.float64, 0.0),
    "tx": (np.float64, 0.0),
}
"""Sums of event times around that of a pane's first reading, as ``s1`` and ``s2`` of values."""
_STATES: Spec = {"states": (np.int64, 0)}
"""How many distinct values a pane has; exact up to the limit."""

NO_ROWS: Int64 = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Rows:
    """*n* accepted readings of numbers, in order of arrival, that a definition takes.

    ``before_ms`` is each row's watermark just before it, negative for none.
    """

    series: Int32
    device: Int32
    site: Int32
    t_ms: Int64
    before_ms: Int64
    received_ms: Int64
    kafka_ms: Int64
    value: Float64

    def __len__(self) -> int:
        return len(self.series)

    def take(self, rows: Int64 | Bool) -> Rows:
        """Select rows by index or mask."""
        return Rows(
            self.series[rows],
            self.device[rows],
            self.site[rows],
            self.t_ms[rows],
            self.before_ms[rows],
            self.received_ms[rows],
            self.kafka_ms[rows],
            self.value[rows],
        )


class Aggregates:
    """The aggregates of one definition over the panes of one table.

    The owner of the table puts the columns of ``spec`` into it; what does not fit into columns
    is kept here, by slot, so slots that change have to be told.

    :param declared: names beyond count, sum, min, max, mean and sd: of
        :data:`~streams.core.windows.ORDERED`, of :data:`~streams.core.windows.TRENDS`, of
        :data:`~streams.core.windows.KEEPING`, or ``p50`` and the like.
    :param max_points: readings, and distinct values, that one pane keeps; where there are more,
        the aggregate that needs them is NaN.
    """

    def __init__(
        self, declared: tuple[str, ...] = (), max_points: int = DEFAULT_MAX_POINTS
    ) -> None:
        self._ordered = [name for name in declared if name in ORDERED]
        self._trends = [name for name in declared if name in TRENDS]
        named = (*ORDERED, *TRENDS, *KEEPING)
        self._quantiles = {n: float(n[1:]) / 100 for n in declared if n not in named}
        self._sketches = Sketches() if self._quantiles else None
        self._steps = Steps() if TIME_WEIGHTED_MEAN in declared else None
        self._states = States() if DISTINCT in declared else None
        self._max_points = max_points
        self.given_up = 0
        """How many readings were not kept because their pane was full."""
        self._ends = bool(self._ordered or self._trends)
        self.spec: Spec = {
            **_BASE,
            **(_ENDS if self._ends else {}),
            **(_TREND if self._trends else {}),
            **(_STATES if self._states is not None else {}),
        }

    def add(self, c: Columns, slots: Int64, rows: Rows, fresh: Int64) -> None:
        """Fold rows into their panes.

        :param fresh: the first row of each pane that is new: its value becomes the shift.
        """
        value = rows.value
        c["shift"][slots[fresh]] = value[fresh]
        np.add.at(c["count"], slots, 1)
        np.add.at(c["sum"], slots, value)
        np.minimum.at(c["min"], slots, value)
        np.maximum.at(c["max"], slots, value)
        around = value - c["shift"][slots]
        np.add.at(c["s1"], slots, around)
        np.add.at(c["s2"], slots, around * around)
        np.maximum.at(c["received_ms"], slots, rows.received_ms)
        np.maximum.at(c["kafka_ms"], slots, rows.kafka_ms)
        # Of repeated indices the last one wins: the site of the newest row.
        c["site"][slots] = rows.site
        if self._ends:
            _add_ends(c, slots, rows.t_ms, value)
        if self._trends:
            c["t0_ms"][slots[fresh]] = rows.t_ms[fresh]
            since_ms = (rows.t_ms - c["t0_ms"][slots]).astype(np.float64)
            np.add.at(c["t1"], slots, since_ms)
            np.add.at(c["t2"], slots, since_ms * since_ms)
            np.add.at(c["tx"], slots, since_ms * around)
        if self._sketches is not None:
            self._sketches.add(slots, value)
        if self._steps is not None:
            room = c["count"][slots] <= self._max_points
            self._steps.add(slots[room], rows.t_ms[room], value[room])
            self.given_up += int((~room).sum())
        if self._states is not None:
            self.given_up += self._states.add(c["states"], slots, value, self._max_points)

    def of_panes(self, c: Columns, slots: Int64) -> Arrays:
        """Return the results of windows of one pane each: name -> array."""
        return self._finish(c, self._parts(c, slots), np.arange(len(slots)), slots)

    def of_slices(self, c: Columns, slices: Int64) -> Arrays:
        """Return the results of windows that share their panes: name -> array.

        :param slices: int64[slices, windows], in order of time: the pane of each slice of each
            window, or -1; every window has one.
        """
        place, owner = np.nonzero(slices >= 0)
        panes, held = slices[place, owner], np.bincount(owner, minlength=slices.shape[1])
        # The windows with the most panes first, and each one's panes moved up: so the windows that
        # have a second pane, or a third one, are the first so many, and all is done in views.
        order = np.argsort(-held, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        nth = (np.cumsum(slices >= 0, axis=0) - 1)[place, owner]
        packed = np.empty_like(slices)
        packed[nth, rank[owner]] = panes
        total = self._parts(c, packed[0])
        for i in range(1, int(held.max(initial=0))):
            n = int(np.searchsorted(-held[order], -i))
            first = {name: array[:n] for name, array in total.items()}
            _merge(first, self._parts(c, packed[i, :n]))
        total = {name: array[rank] for name, array in total.items()}
        return self._finish(c, total, owner, panes)

    def absorb(self, c: Columns, pane: int, other: int) -> None:
        """Fold *other* into *pane*, as if its readings had been added there."""
        moved = c["shift"][other] - c["shift"][pane]
        count, s1 = c["count"][other], c["s1"][other]
        if self._trends:
            _absorb_trend(c, pane, other, moved)
        c["s2"][pane] += c["s2"][other] + 2.0 * moved * s1 + count * moved * moved
        c["s1"][pane] += s1 + count * moved
        c["count"][pane] += count
        c["sum"][pane] += c["sum"][other]
        c["min"][pane] = min(c["min"][pane], c["min"][other])
        for name in ("max", "received_ms", "kafka_ms"):
            c[name][pane] = max(c[name][pane], c[name][other])
        if self._ends:
            _absorb_ends(c, pane, other)
        if self._sketches is not None:
            self._sketches.absorb(pane, other)
        if self._steps is not None:
            self._steps.absorb(pane, other)
        if self._states is not None:
            self._states.absorb(c["states"], pane, other, self._max_points)

    def renumber(self, new: Int64) -> None:
        """Follow a renumbering of panes; -1 for those that went."""
        for store in (self._sketches, self._steps, self._states):
            if store is not None:
                store.renumber(new)

    def snapshot(self, slots: Int64) -> dict[str, Any]:
        """Return what is kept beside the columns for some panes, numbered from zero."""
        kept: dict[str, Any] = {} if self._sketches is None else self._sketches.snapshot(slots)
        if self._steps is not None:
            kept["steps"] = self._steps.snapshot(slots)
        if self._states is not None:
            kept["states"] = self._states.snapshot(slots)
        return kept

    def restore(self, kept: dict[str, Any], slots: Int64) -> None:
        """Add what :meth:`snapshot` returned; *slots* are the panes of now."""
        if self._sketches is not None:
            self._sketches.restore(kept, slots)
        if self._steps is not None:
            self._steps.restore(kept["steps"], slots)
        if self._states is not None:
            self._states.restore(kept["states"], slots)

    def _parts(self, c: Columns, slots: Int64) -> Arrays:
        """Return panes in the form in which they merge: around their mean."""
        parts: Arrays = {name: c[name][slots] for name in self.spec}
        count, s1 = parts["count"], parts.pop("s1")
        with np.errstate(invalid="ignore", divide="ignore"):
            parts["centre"] = parts.pop("shift") + s1 / count
            parts["m2"] = parts.pop("s2") - s1 * s1 / count
            if self._trends:
                t1 = parts.pop("t1")
                parts["t_centre_ms"] = parts.pop("t0_ms") + t1 / count
                parts["t_m2"] = parts.pop("t2") - t1 * t1 / count
                parts["tx_m2"] = parts.pop("tx") - t1 * s1 / count
        return parts

    def _finish(self, c: Columns, parts: Arrays, owners: Int64, panes: Int64) -> Arrays:
        count = parts["count"]
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt(np.maximum(parts["m2"] / (count - 1.0), 0.0))
        sd[count < 2] = np.nan
        done = {name: parts[name] for name in ("site", "count", "sum", "min", "max", "kafka_ms")}
        done |= {"mean": parts["sum"] / count, "sd": sd, "last_received_ms": parts["received_ms"]}
        done |= {name: _ordered(name, parts) for name in self._ordered}
        done |= {name: _trend(name, parts) for name in self._trends}
        if self._sketches is not None:
            wanted = list(self._quantiles.values())
            found = self._sketches.quantiles(owners, panes, len(count), wanted)
            bounds = (parts["min"], parts["max"])
            done |= {n: np.clip(q, *bounds) for n, q in zip(self._quantiles, found, strict=True)}
        if self._steps is not None:
            means = self._steps.means(owners, panes, len(count))
            means[owners[c["count"][panes] > self._max_points]] = np.nan
            done[TIME_WEIGHTED_MEAN] = means
        if self._states is not None:
            states = self._states.counts(owners, panes, len(count))
            states[owners[c["states"][panes] > self._max_points]] = np.nan
            done[DISTINCT] = states
        return done


def kept_of(kept: dict[str, Any], panes: Bool) -> dict[str, Any]:
    """Return what :meth:`Aggregates.snapshot` returned, for some of its panes only."""
    place = np.where(panes, np.cumsum(panes) - 1, -1)
    rows = place[kept["slot"]] >= 0 if "slot" in kept else None
    return {
        name: kept_of(found, panes)
        if isinstance(found, dict)
        else (place[found[rows]].astype(found.dtype) if name == "slot" else found[rows])
        for name, found in kept.items()
    }


def _merge(total: Arrays, part: Arrays) -> None:
    """Fold the parts of a later slice into those of earlier ones."""
    before, more = total["count"], part["count"]
    count = before + more
    share = more / count
    apart = part["centre"] - total["centre"]
    weight = before * more / count
    total["m2"] += part["m2"]
    total["m2"] += apart * apart * weight
    total["centre"] += apart * share
    total["sum"] += part["sum"]
    np.minimum(total["min"], part["min"], out=total["min"])
    for name in ("max", "received_ms", "kafka_ms"):
        np.maximum(total[name], part[name], out=total[name])
    total["site"][:] = part["site"]
    if "first_ms" in part:
        total["last_ms"][:], total["last"][:] = part["last_ms"], part["last"]
    if "t_m2" in part:
        apart_ms = part["t_centre_ms"] - total["t_centre_ms"]
        total["t_m2"] += part["t_m2"]
        total["t_m2"] += apart_ms * apart_ms * weight
        total["tx_m2"] += part["tx_m2"]
        total["tx_m2"] += apart_ms * apart * weight
        total["t_centre_ms"] += apart_ms * share
    total["count"][:] = count


def _add_ends(c: Columns, slots: Int64, t_ms: Int64, value: Float64) -> None:
    """Keep the first and the last reading in event time; of equal times the first to arrive
    is the first, the last to arrive the last.
    """
    order = np.lexsort((t_ms, slots))
    s = slots[order]
    edge = np.flatnonzero(s[1:] != s[:-1]) + 1
    head, tail = order[np.r_[0, edge]], order[np.r_[edge - 1, len(s) - 1]]
    head = head[t_ms[head] < c["first_ms"][slots[head]]]
    tail = tail[t_ms[tail] >= c["last_ms"][slots[tail]]]
    c["first_ms"][slots[head]], c["first"][slots[head]] = t_ms[head], value[head]
    c["last_ms"][slots[tail]], c["last"][slots[tail]] = t_ms[tail], value[tail]


def _absorb_ends(c: Columns, pane: int, other: int) -> None:
    if c["first_ms"][other] < c["first_ms"][pane]:
        c["first_ms"][pane], c["first"][pane] = c["first_ms"][other], c["first"][other]
    if c["last_ms"][other] > c["last_ms"][pane]:
        c["last_ms"][pane], c["last"][pane] = c["last_ms"][other], c["last"][other]


def _absorb_trend(c: Columns, pane: int, other: int, moved: float) -> None:
    """Move the sums of *other* to the time and the value around which those of *pane* are."""
    count, s1, t1 = c["count"][other], c["s1"][other], c["t1"][other]
    moved_ms = float(c["t0_ms"][other] - c["t0_ms"][pane])
    c["tx"][pane] += c["tx"][other] + moved_ms * s1 + moved * t1 + count * moved_ms * moved
    c["t2"][pane] += c["t2"][other] + 2.0 * moved_ms * t1 + count * moved_ms * moved_ms
    c["t1"][pane] += t1 + count * moved_ms


def _trend(name: str, parts: Arrays) -> Float64:
    """Return the slope per second, or the line's value at the last reading.

    NaN where all readings are of one moment.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        per_ms: Float64 = parts["tx_m2"] / parts["t_m2"]
    per_ms[parts["first_ms"] == parts["last_ms"]] = np.nan
    if name == "trend":
        return per_ms * 1000.0
    last: Float64 = parts["centre"] + per_ms * (parts["last_ms"] - parts["t_centre_ms"])
    return last


def _ordered(name: str, parts: Arrays) -> Float64:
    if name in ("first", "last"):
        return parts[name]
    delta: Float64 = parts["last"] - parts["first"]
    if name == "delta":
        return delta
    # Per second; a single moment has no rate.
    with np.errstate(invalid="ignore", divide="ignore"):
        rate: Float64 = delta / ((parts["last_ms"] - parts["first_ms"]) / 1000.0)
    rate[parts["last_ms"] == parts["first_ms"]] = np.nan
    return rate

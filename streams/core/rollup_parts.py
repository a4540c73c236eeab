"""Parts of a group (its members, or what a partition has made of them), and how they combine.

Parts are combined in their order, one after the other, so that the bits depend on nothing else.
The second moment is that of Chan, Golub and LeVeque (1979) for many parts at once: the moments
inside the parts, and the parts' means around the common mean. Means are taken around the first
part's, so that a large common offset costs no digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.core.readings import Float64, Int32, Int64, Labels

Values = dict[str, NDArray[Any]]

VALUES: dict[str, tuple[Any, Any]] = {
    "rank": (np.int64, 0),
    "revision": (np.int64, 0),
    "count": (np.int64, 0),
    "sum": (np.float64, 0.0),
    "min": (np.float64, np.nan),
    "max": (np.float64, np.nan),
    "mean": (np.float64, np.nan),
    "m2": (np.float64, 0.0),
    "last_received_ms": (np.int64, -1),
    "kafka_ms": (np.int64, -1),
    "final": (np.int64, 0),
    "provisional": (np.int64, 0),
    "missing": (np.int64, 0),
}
"""What is kept of a part: ``rank`` orders its results, ``revision`` is what it adds to the
group's; ``final``, ``provisional`` and ``missing`` are the members that it stands for."""


@dataclass(frozen=True, slots=True)
class Parts:
    """*n* results of parts of groups, in the order of the log; the columns are in ``VALUES``.

    ``part`` names the member (a device) or the partition, ``group`` the group that it is in;
    ``site`` is kept with it, as a later change of groups may go by it.
    """

    tenant: Labels
    group: Labels
    metric: Labels
    window: Labels
    part: Labels
    site: Labels
    start_ms: Int64
    end_ms: Int64
    values: Values

    def __len__(self) -> int:
        return len(self.start_ms)

    def take(self, rows: NDArray[Any]) -> Parts:
        """Select rows by index or mask."""
        columns: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "values"
        }
        taken: dict[str, Any] = {
            name: c.take(rows) if isinstance(c, Labels) else c[rows] for name, c in columns.items()
        }
        return Parts(**taken, values={name: column[rows] for name, column in self.values.items()})


@dataclass(frozen=True, slots=True)
class Placed:
    """Parts with the integers of their names.

    ``owner`` int32[n] names (tenant, part, metric, window), ``track`` int32[n] (tenant, group,
    metric, window), ``site`` int32[n] the site; ``keep_ms`` is for how long after its last change
    the window is kept.
    """

    parts: Parts
    owner: Int32
    track: Int32
    site: Int32
    keep_ms: Int64

    def take(self, rows: NDArray[Any]) -> Placed:
        """Select rows by index or mask."""
        columns = (self.owner, self.track, self.site, self.keep_ms)
        return Placed(self.parts.take(rows), *(column[rows] for column in columns))


def combine(group: Int64, groups: int, parts: Mapping[str, NDArray[Any]]) -> Values:
    """Combine the parts of each group, in the order given.

    :param group: int64[n], the group of each part in [0, *groups*).
    :param parts: the columns of ``VALUES``, each [n]; a part of count 0 has only a revision.
    :returns: the same columns, each [groups], without ``rank``, and ``sd`` (n-1, NaN below 2).
    """
    live = parts["count"] > 0
    at, held = group[live], {name: column[live] for name, column in parts.items()}
    out: Values = {name: np.zeros(groups, VALUES[name][0]) for name in ("count", "sum", "m2")}
    for name in ("count", "sum"):
        np.add.at(out[name], at, held[name])
    for name in ("revision", "missing"):
        out[name] = np.zeros(groups, np.int64)
        np.add.at(out[name], group, parts[name])
    for name in ("final", "provisional"):
        out[name] = np.zeros(groups, np.int64)
        np.add.at(out[name], at, held[name])
    for name in ("last_received_ms", "kafka_ms"):
        out[name] = np.full(groups, -1, np.int64)
        np.maximum.at(out[name], group, parts[name])
    empty = out["count"] == 0
    for name, pick, start in (("min", np.minimum, np.inf), ("max", np.maximum, -np.inf)):
        out[name] = np.full(groups, start)
        pick.at(out[name], at, held[name])
        out[name][empty] = np.nan
    _moments(at, held, out)
    return out


def _moments(at: Int64, parts: Values, out: Values) -> None:
    n = out["count"]
    first = np.zeros(len(n))
    first[at[::-1]] = parts["mean"][::-1]  # of repeated indices the last one wins
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        around: Float64 = np.zeros(len(n))
        np.add.at(around, at, parts["count"] * (parts["mean"] - first[at]))
        middle = first + around / n
        off = parts["mean"] - middle[at]
        np.add.at(out["m2"], at, parts["m2"] + parts["count"] * (off * off))
        out["mean"] = out["sum"] / n
        out["sd"] = np.where(n > 1, np.sqrt(out["m2"] / (n - 1.0)), np.nan)

"""Tables of features by time, for training: from the lake, or from a file of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from streams import lake
from streams.core.feedback import MISSED
from streams.errors import HeadwaterError
from streams.sim.nab import to_ms
from streams.topics import LABELS

_TIMES = ("timestamp", "t_ms", "time", "datetime", "ts")


@dataclass(frozen=True, slots=True)
class Table:
    """``t_ms`` int64[n], and ``rows`` float64[n, features], NaN where a feature is missing.

    ``labels`` counts what operators said of it, by kind.
    """

    features: tuple[str, ...]
    t_ms: NDArray[np.int64]
    rows: NDArray[np.float64]
    labels: Mapping[str, int] = field(default_factory=dict)


def from_lake(
    metrics: Sequence[str], device: str, every_ms: int, *, root: Path | None = None, **where: Any
) -> Table:
    """Return the means of a device's metrics in steps of *every_ms*.

    Steps that touch what operators have labelled as ``missed`` are left out: they are not healthy.

    :param where: as :func:`streams.lake.readings`.
    :raises HeadwaterError: if the lake has none of one of the metrics.
    """
    held = {
        metric: lake.readings(device=device, metric=metric, root=root, **where)
        for metric in metrics
    }
    empty = [metric for metric, table in held.items() if not len(table)]
    if empty:
        raise HeadwaterError(f"the lake has no readings of {device} for {', '.join(empty)}")
    steps = {
        metric: np.asarray(table["t_ms"], np.int64) // every_ms for metric, table in held.items()
    }
    every = np.unique(np.concatenate(list(steps.values())))
    rows = np.full((len(every), len(metrics)), np.nan)
    for k, (metric, table) in enumerate(held.items()):
        value = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
        known = np.isfinite(value)
        at = np.searchsorted(every, steps[metric][known])
        count = np.bincount(at, minlength=len(every))
        total = np.bincount(at, value[known], minlength=len(every))
        np.divide(total, count, out=rows[:, k], where=count > 0)
    said = _labels(metrics, device, root)
    t_ms = every * every_ms
    healthy = np.ones(len(t_ms), np.bool_)
    for one in said:
        if one["kind"] == MISSED:
            healthy &= (t_ms + every_ms <= one["since_ms"]) | (t_ms >= one["until_ms"])
    counts = Counter(one["kind"] for one in said)
    return Table(tuple(metrics), t_ms[healthy], rows[healthy], counts)


def _labels(metrics: Sequence[str], device: str, root: Path | None) -> list[dict[str, Any]]:
    if LABELS not in lake.tables(root=root):
        return []
    found = lake.labels(device=device, root=root).to_pylist()
    return [one for one in found if one["metric"] in metrics]


def from_file(path: Path, features: Sequence[str]) -> Table:
    """Return columns of a CSV (commas or semicolons) or Parquet file.

    The time is the column ``timestamp``, ``t_ms``, ``time``, ``datetime`` or ``ts``: ISO 8601, or
    milliseconds.

    :raises HeadwaterError: naming what the file lacks.
    """
    table = _read(path)
    time = next((name for name in _TIMES if name in table.column_names), None)
    missing = [name for name in features if name not in table.column_names]
    if time is None or missing:
        what = f"no column {missing[0]!r}" if missing else f"no time ({', '.join(_TIMES)})"
        raise HeadwaterError(f"{path}: {what}; it has {', '.join(table.column_names)}")
    try:
        t_ms = np.asarray([_ms(at) for at in table[time].to_pylist()], np.int64)
        rows = np.stack(
            [table[name].cast(pa.float64()).to_numpy().astype(np.float64) for name in features],
            axis=1,
        )
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise HeadwaterError(f"{path}: {error}; expected times, and numbers") from error
    return Table(tuple(features), t_ms, rows)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path)
        with path.open() as file:
            semicolons = ";" in file.readline()
        options = pa.csv.ParseOptions(delimiter=";" if semicolons else ",")
        return pa.csv.read_csv(path, parse_options=options)
    except (OSError, pa.ArrowException) as error:
        raise HeadwaterError(f"{path}: {error}") from error


def _ms(at: Any) -> int:
    if isinstance(at, int):
        return at
    return to_ms(at if isinstance(at, str) else at.isoformat())

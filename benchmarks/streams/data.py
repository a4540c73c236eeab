"""The readings that every system gets: who, when, which number, what, in order of arrival.

Each device measures once per interval. 5 % of the readings arrive one to five intervals after
their turn, and 1 % of all are sent a second time (the same boot and seq), as late again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from streams.core.placement import partition_of
from streams.core.readings import Labels, Readings
from streams.gateway.records import frame_records

TENANT = SITE = "default"
METRIC = "temperature"
BOOT = 1
PARTITIONS = 4
WINDOW_MS = 60_000
_DISORDER = 0.05
_DUPLICATES = 0.01
_MAX_DELAY = 5
_LEVEL = 20.0
_AGE_MS = 600_000

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Data:
    """*n* readings in order of arrival. ``device`` int32[n] indexes ``names``."""

    name: str
    names: tuple[str, ...]
    device: Int32
    t_ms: Int64
    seq: Int64
    value: Float64

    def __len__(self) -> int:
        return len(self.device)

    def partition(self) -> Int32:
        """Return the partition of each reading."""
        by_device = [partition_of(TENANT, name, PARTITIONS) for name in self.names]
        return np.asarray(by_device, np.int32)[self.device]


def generated(name: str, *, devices: int, readings: int, interval_ms: int, seed: int) -> Data:
    """Return *readings* of *devices* in turn, with disorder and duplicates.

    The seed decides all but the time: the last turn was some minutes ago, at the same place in
    its window whenever this is called. Old times would not do, for peers expire by the clock.
    """
    span_ms = readings // devices * interval_ms
    start_ms = (int(time.time() * 1000) - span_ms - _AGE_MS) // WINDOW_MS * WINDOW_MS
    rng = np.random.default_rng(seed)
    unique = round(readings / (1 + _DUPLICATES))
    turn = np.arange(unique, dtype=np.int64)
    device, seq = turn % devices, turn // devices
    # Devices are spread over the interval, so that arrival order is time order.
    t_ms = start_ms + seq * interval_ms + device * interval_ms // devices
    value = np.round(_LEVEL + rng.normal(0.0, 1.0, unique), 3)
    arrival = t_ms.copy()
    held = rng.random(unique) < _DISORDER
    arrival[held] += (rng.uniform(1, _MAX_DELAY, int(held.sum())) * interval_ms).astype(np.int64)
    again = rng.choice(unique, readings - unique, replace=False)
    delay = (rng.uniform(1, _MAX_DELAY, len(again)) * interval_ms).astype(np.int64)
    rows = np.concatenate([turn, again])
    order = np.argsort(np.concatenate([arrival, arrival[again] + delay]), kind="stable")
    rows = rows[order]
    names = tuple(f"sensor-{number:07d}" for number in range(devices))
    return Data(name, names, device[rows].astype(np.int32), t_ms[rows], seq[rows], value[rows])


def from_file(path: Path) -> Data:
    """Read a CSV or Parquet file with the columns device, t_ms, seq and temperature, as it is.

    :raises KeyError: if a column is missing.
    """
    table: pa.Table = csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
    device = table["device"].cast(pa.string()).combine_chunks().dictionary_encode()
    return Data(
        path.stem,
        tuple(device.dictionary.to_pylist()),
        device.indices.to_numpy(),
        table["t_ms"].cast(pa.int64()).to_numpy(),
        table["seq"].cast(pa.int64()).to_numpy(),
        table[METRIC].cast(pa.float64()).to_numpy(),
    )


def json_records(data: Data) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield partition, key and value of each reading as one JSON record."""
    keys = [f"{TENANT}/{name}".encode() for name in data.names]
    columns = (data.device, data.partition(), data.t_ms, data.seq, data.value)
    for device, partition, t_ms, seq, value in zip(*(c.tolist() for c in columns), strict=True):
        yield (
            partition,
            keys[device],
            b'{"t_ms":%d,"boot":%d,"seq":%d,"temperature":%.3f}' % (t_ms, BOOT, seq, value),
        )


def frame_values(data: Data, rows: int) -> Iterator[tuple[int, bytes, list[tuple[str, bytes]]]]:
    """Yield partition, value and headers of frames of up to *rows* readings each.

    Frames of the four partitions take turns, as a gateway would send them.
    """
    partition = data.partition()
    mine = [np.flatnonzero(partition == p) for p in range(PARTITIONS)]
    for begin in range(0, max(map(len, mine)), rows):
        for part in mine:
            at = part[begin : begin + rows]
            if len(at):
                for record in frame_records(_readings(data, at), PARTITIONS, rows):
                    assert record.value is not None and record.partition is not None
                    yield record.partition, record.value, list(record.headers.items())


def _readings(data: Data, rows: Int64) -> Readings:
    n = len(rows)
    used, codes = np.unique(data.device[rows], return_inverse=True)
    t_ms = data.t_ms[rows]
    return Readings(
        tenant=Labels.constant(TENANT, n),
        site=Labels.constant(SITE, n),
        device=Labels(codes.astype(np.int32), tuple(data.names[d] for d in used.tolist())),
        metric=Labels.constant(METRIC, n),
        t_ms=t_ms,
        received_ms=np.maximum.accumulate(t_ms),
        value=data.value[rows],
        quality=np.zeros(n, np.uint8),
        boot=np.full(n, BOOT, np.int64),
        seq=data.seq[rows],
        exact_int={},
        text={},
    )

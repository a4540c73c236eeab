"""Readings to measure with: series at 1 Hz with three decimals, as sensors give them."""

from __future__ import annotations

import numpy as np

from streams.core.readings import Labels, Readings

START_MS = 1_750_000_000_000


def steady(rows: int, devices: int, first: int, seed: int) -> Readings:
    """Return readings of 1 Hz, device after device, seconds in order.

    :param first: seconds that came before, so that numbers and times go on.
    """
    rng = np.random.default_rng(seed + first)
    row = np.arange(rows)
    second = first + row // devices
    walk = np.cumsum(rng.normal(0, 0.02, rows)) + rng.normal(0, 0.02, rows)
    t_ms = START_MS + 1_000 * second
    return Readings(
        Labels.constant("default", rows),
        Labels.constant("bench", rows),
        Labels((row % devices).astype(np.int32), tuple(f"device-{n:04d}" for n in range(devices))),
        Labels.constant("temperature", rows),
        t_ms,
        t_ms + rng.integers(3, 30, rows),
        np.round(20 + walk, 3),
        np.zeros(rows, np.uint8),
        np.full(rows, 1, np.int64),
        second.astype(np.int64),
        {},
        {},
    )

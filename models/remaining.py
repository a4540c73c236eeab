"""Remaining useful life where machines of the kind have run to failure before.

Quantile gradient boosting on what is known at a time (its level, its rate, its age), whose interval
is then widened or narrowed by machines that it had not seen, until it held for the share asked
for: conformalised quantile regression (Romano, Patterson and Candès, NeurIPS 2019). Machines, not
rows, are set apart for that, as rows of one machine say the same thing.

Works from some tens of machines on, for those of the same kind and use. Cost: milliseconds a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from models.errors import ModelError

Float64 = NDArray[np.float64]
MACHINES_MIN = 10
_SET_APART = 0.3
_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class RemainingLife:
    """Three learnt quantiles, and how far the interval was moved outwards."""

    low: Any
    median: Any
    high: Any
    margin: float

    def predict(self, rows: Float64) -> Float64:
        """Return low, median and high remaining life, float64[n, 3], 0 or more and in order.

        :param rows: float64[n, features].
        """
        median = self.median.predict(rows)
        low = np.minimum(self.low.predict(rows) - self.margin, median)
        high = np.maximum(self.high.predict(rows) + self.margin, median)
        found: Float64 = np.maximum(np.stack([low, median, high], axis=1), 0.0)
        return found


def learn_remaining(
    rows: Float64, remaining: Float64, machine: Any, *, probability: float = 0.9, seed: int = 1
) -> RemainingLife:
    """Learn from machines that ran to failure.

    :param rows: float64[n, features]. :param remaining: float64[n], the life left at each row.
    :param machine: int[n], whose row it is. :param probability: of the interval.
    :raises ModelError: if there are fewer than ``MACHINES_MIN`` machines.
    """
    machines = np.unique(machine)
    if len(machines) < MACHINES_MIN:
        raise ModelError(f"{len(machines)} machines that ran to failure; expected {MACHINES_MIN}")
    order = np.random.default_rng(seed).permutation(machines)
    apart = np.isin(machine, order[: int(np.ceil(_SET_APART * len(machines)))])
    tail = (1.0 - probability) / 2.0
    # The order in which several threads add would decide the last bits.
    with threadpool_limits(1):
        low, median, high = (
            HistGradientBoostingRegressor(
                loss="quantile", quantile=share, max_iter=_ITERATIONS, random_state=seed
            ).fit(rows[~apart], remaining[~apart])
            for share in (tail, 0.5, 1.0 - tail)
        )
    outside = np.maximum(
        low.predict(rows[apart]) - remaining[apart], remaining[apart] - high.predict(rows[apart])
    )
    return RemainingLife(low, median, high, float(np.quantile(outside, probability)))

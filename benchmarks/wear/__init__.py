"""Time to the limit on simulated wear: how often an interval of 90 % holds, and how wide it is.

200 machines of each kind, asked when shares of their life have passed; lengths in shares of a life.
"""

from __future__ import annotations

import numpy as np

from benchmarks.report import Measure, at_least
from models.core.wear import POINTS_MIN, time_to_limit
from models.simulated_wear import LIMIT, lives

_MACHINES = 200


def run(*, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    measures = []
    for exponential in (False, True):
        kind = "exponential wear" if exponential else "steady wear"
        for share in (0.3, 0.5, 0.7, 0.9):
            held, wide, off = [], [], []
            for life in lives(_MACHINES, seed, exponential=exponential):
                seen = int(share * life.failed)
                if seen < POINTS_MIN:
                    continue
                found = time_to_limit(
                    life.day[:seen], life.wear[:seen], LIMIT, logarithmic=exponential
                )
                true = life.failed - life.day[seen - 1]
                held.append(found.low <= true <= found.high)
                wide.append((found.high - found.low) / life.failed)
                off.append(abs(found.median - true) / life.failed)
            label = f"{kind}, {share:.0%} of life seen"
            measures.append(at_least(f"{label}: coverage", float(np.mean(held)), "", 0.85))
            measures.append(Measure(f"{label}: median width", round(float(np.median(wide)), 3), ""))
            measures.append(Measure(f"{label}: median error", round(float(np.median(off)), 3), ""))
    return measures

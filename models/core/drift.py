"""Whether what a model is fed, and what it says, is still what it was trained and judged on.

For each feature the share of recent values outside of what training had seen, and beside them the
share of recent rows over the threshold, exponentially weighted over rows. A fault makes both rise
for a while; drift is what stays, so the half-life is long.

Works for values that leave their range and for scores that rise for good. Blind to a change inside
of the ranges that the model itself does not find strange. Cost: one number per feature, and two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.core.baselines import alpha


@dataclass(frozen=True, slots=True)
class Drift:
    """``shares`` are those of the features, in their order, and last that of the scores."""

    rows: int
    shares: tuple[float, ...]

    def worst(self) -> int:
        """Return which share is the greatest: the number of a feature, or of features for the
        score."""
        return max(range(len(self.shares)), key=self.shares.__getitem__)


def fresh(features: int) -> Drift:
    """Return what is known before the first row."""
    return Drift(0, (0.0,) * (features + 1))


def follow(known: Drift, strange: Sequence[bool], half_life: float) -> Drift:
    """Take one more row.

    :param strange: per feature whether its value is outside, and last whether the score is over.
    :param half_life: rows after which a row has half its weight.
    """
    rate = max(alpha(half_life), 1.0 / (known.rows + 1))
    shares = tuple(
        share + rate * (now - share) for share, now in zip(known.shares, strange, strict=True)
    )
    return Drift(known.rows + 1, shares)

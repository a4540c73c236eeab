"""Why a row is strange to a model, whatever its kind: which features, and by how much.

Each feature is put back, one at a time, to what was usual in training; what the score loses by it
is that feature's part (occlusion, as Zeiler and Fergus 2014 did for images). Where no feature by
itself makes up for it, the relation between them is what is strange.

Cost: one more row to score per feature, so it is for rows over the threshold only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.shelf import Live

Float64 = NDArray[np.float64]
_NAMED = 3
_SHARE = 0.2
"""A feature is named if it explains at least this share of what the strangest one does."""


def parts(live: Live, row: Float64) -> Float64:
    """Return what the score loses with each feature put back, float64[features]; 0 or more.

    :param row: float64[features], finite.
    """
    rows = np.tile(row, (len(row) + 1, 1))
    at = np.arange(len(row))
    rows[at + 1, at] = usual(live)
    score = live.scorer.score(rows)
    lost: Float64 = np.maximum(score[0] - score[1:], 0.0)
    return lost


def usual(live: Live) -> Float64:
    """Return what is usual of each feature: the median of training, for a card of an earlier
    version the middle of the range."""
    card = live.card
    return np.asarray(card.usual or [(low + high) / 2 for low, high in card.ranges])


def words(live: Live, row: Float64, score: float) -> str:
    """Say what is strange about a row, the strangest feature first."""
    lost, normal = parts(live, row), usual(live)
    order = np.argsort(-lost, kind="stable")[:_NAMED].tolist()
    named = [k for k in order if lost[k] > 0 and lost[k] >= _SHARE * lost.max()]
    said = ", ".join(f"{live.card.features[k]} {row[k]:.4g} (usual {normal[k]:.4g})" for k in named)
    if not named or score - lost.max() >= live.card.threshold:
        said = f"the relation between {', '.join(live.card.features)}" + (said and f"; {said}")
    return f"{said}; score {score:.4g}, bound {live.card.threshold:.4g}"

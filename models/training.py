"""Training in the order of time: what comes later judges what was learnt before.

The rows are cut into equal parts by time. For each part but the first a model is learnt from all
parts before it and scores this one; the spread of the shares over the threshold says how steady
the model is. The threshold is the value that a healthy row exceeds with the share ``alarm_share``,
taken from the later half of these scores, as models that had seen little find much strange. The
last model learns from all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.multivariate import STEP, Model, fit

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained: a ``kind``, by a ``seed``, judged in ``parts`` parts of time.

    ``alarm_share`` is the share of healthy rows that may be over the threshold.
    """

    kind: str
    seed: int = 1
    parts: int = 5
    alarm_share: float = 0.001


@dataclass(frozen=True, slots=True)
class Part:
    """How a model learnt from all before did on one part of time."""

    since_ms: int
    until_ms: int
    rows: int
    median: float
    highest: float
    over: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, its threshold, and how it was judged. ``t_ms`` and ``score`` are of all rows that
    were scored by a model that had not seen them."""

    model: Model
    threshold: float
    parts: tuple[Part, ...]
    t_ms: Int64
    score: Float64


def train(
    plan: Plan,
    features: tuple[str, ...],
    t_ms: Int64,
    rows: Float64,
    progress: Callable[[float], None] = lambda _share: None,
) -> Trained:
    """Train a model.

    :param t_ms: int64[n]. :param rows: float64[n, features], in any order of time.
    :param progress: told the share that is done.
    :raises ModelError: if there are too few rows, or the plan is not possible.
    """
    if plan.parts < 2 or not 0.0 < plan.alarm_share < 1.0:
        raise ModelError(
            f"{plan.parts} parts and an alarm share of {plan.alarm_share}; expected 2 parts or "
            "more, and a share between 0 and 1"
        )
    order = np.argsort(t_ms, kind="stable")
    t_ms, rows = t_ms[order], rows[order]
    edges = np.linspace(0, len(rows), plan.parts + 1).astype(int).tolist()
    judged: list[tuple[Int64, Float64]] = []
    for k, (begin, end) in enumerate(pairwise(edges[1:])):
        part = fit(plan.kind, features, rows[:begin], plan.seed).score(rows[begin:end])
        known = np.isfinite(part)
        judged.append((t_ms[begin:end][known], part[known]))
        progress((k + 1) / plan.parts)
    score = np.concatenate([part for _, part in judged])
    if not len(score):
        raise ModelError("no complete row is left to judge the model by")
    late = np.concatenate([part for _, part in judged[len(judged) // 2 :]])
    threshold = _threshold(late if len(late) else score, plan.alarm_share)
    model = fit(plan.kind, features, rows, plan.seed)
    progress(1.0)
    return Trained(
        model=model,
        threshold=threshold,
        parts=tuple(_part(t, part, threshold) for t, part in judged if len(part)),
        t_ms=np.concatenate([t for t, _ in judged]),
        score=score,
    )


def _threshold(score: Float64, share: float) -> float:
    """Return a threshold between two steps, so that no rounded score lies on it."""
    highest = float(np.quantile(score, 1.0 - share))
    return float((np.ceil(highest / STEP) + 0.5) * STEP)


def _part(t_ms: Int64, score: Float64, threshold: float) -> Part:
    return Part(
        since_ms=int(t_ms[0]),
        until_ms=int(t_ms[-1]) + 1,
        rows=len(score),
        median=float(np.median(score)),
        highest=float(score.max()),
        over=float((score >= threshold).mean()),
    )

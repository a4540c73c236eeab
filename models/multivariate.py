"""Detectors over several features at once, of one device or of alike ones, with scikit-learn.

All are learnt from rows that are held to be mostly healthy, after each feature was centred at its
median and scaled by its interquartile range, so that units do not matter. A score is larger the
stranger a row is; decisions are taken on scores rounded to ``STEP``, so that the last bits, which
depend on how rows are batched, do not decide (unless a score lies within 1e-12 of half a step).

==================  ==================================================================== ==========
kind                works                                                                cost a row
==================  ==================================================================== ==========
isolation-forest    for any shape of normal, clusters included; blind to a relation      100 trees
                    between features that breaks inside their ranges (Liu et al. 2008)
covariance          for one elliptic cloud, coarse features included; Mahalanobis        d²
                    distance by the minimum covariance determinant (Rousseeuw and Van
                    Driessen 1999)
pca                 for features that move together: T² within the relation, Q off it,   d·k
                    each in units of its healthy 99 % (Jackson and Mudholkar 1979)
one-class-svm       for small data of any smooth shape (Schölkopf et al. 2001)           d·vectors
==================  ==================================================================== ==========
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Float64 = NDArray[np.float64]

STEP = 1e-4
"""Scores are rounded to multiples of this before anything is decided."""
ROWS_MIN = 50
_VARIANCE_KEPT = 0.95
_HEALTHY_SHARE = 0.99
_TREES = 100
_OUTSIDE = 0.01
"""Share of the training rows that a one-class SVM may leave outside."""
_SVM_ROWS = 5_000
"""Rows that a one-class SVM learns from at most, evenly spread: it costs their square."""
_SCALE_MIN = 1e-9
_BLUR = 0.03
"""What is finer than this share of a feature's standard deviation says nothing to a covariance."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained detector: ``center`` and ``scale`` of each feature, and what scikit-learn learnt.

    ``limits`` are what T² and Q of ``pca`` are measured in; empty for the others.
    """

    kind: str
    features: tuple[str, ...]
    center: Float64
    scale: Float64
    estimator: Any
    limits: Float64

    def score(self, rows: Float64) -> Float64:
        """Return the rounded score of each row.

        :param rows: float64[n, features]. :returns: float64[n]; NaN where a feature is not finite.
        :raises ModelError: if there are other numbers of features.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise ModelError(
                f"rows of shape {rows.shape}; expected n rows of {len(self.features)} features: "
                f"{', '.join(self.features)}"
            )
        return rounded(self.raw(rows))

    def raw(self, rows: Float64) -> Float64:
        """Return scores before they are rounded."""
        score = np.full(len(rows), np.nan)
        known = np.isfinite(rows).all(axis=1)
        if known.any():
            scaled = (rows[known] - self.center) / self.scale
            score[known] = _SCORES[self.kind](self, scaled)
        return score


def rounded(score: Float64) -> Float64:
    """Return scores as multiples of ``STEP``."""
    found: Float64 = np.round(score / STEP) * STEP
    return found


def fit(kind: str, features: tuple[str, ...], rows: Float64, seed: int) -> Model:
    """Return a detector that was learnt from rows.

    :param kind: one of :data:`KINDS`. :param rows: float64[n, features]; rows with a feature that
        is not finite are left out.
    :raises ModelError: if the kind is unknown, or fewer than ``ROWS_MIN`` rows are left.
    """
    if kind not in _FITS:
        raise ModelError(f"no kind of model is named {kind!r}; there are {', '.join(KINDS)}")
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < max(ROWS_MIN, 5 * len(features)):
        raise ModelError(
            f"{len(rows)} complete rows of {len(features)} features; expected at least "
            f"{max(ROWS_MIN, 5 * len(features))}"
        )
    center = np.median(rows, axis=0)
    low, high = np.percentile(rows, [25, 75], axis=0)
    # A feature that hardly moves is measured by its deviation, then by 1.
    scale = np.where(high - low > _SCALE_MIN, high - low, rows.std(axis=0))
    scale = np.where(scale > _SCALE_MIN, scale, 1.0)
    estimator, limits = _FITS[kind]((rows - center) / scale, seed)
    return Model(kind, features, center, scale, estimator, limits)


_NONE = np.empty(0)


def _fit_forest(rows: Float64, seed: int) -> tuple[Any, Float64]:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=_TREES, random_state=seed).fit(rows), _NONE


def _fit_covariance(rows: Float64, seed: int) -> tuple[Any, Float64]:
    from sklearn.covariance import MinCovDet

    # A coarse feature is the same in half of the rows: the least determinant is then 0, of any such
    # half, and what lies off that value is infinitely far away.
    blur = np.random.default_rng(seed).normal(size=rows.shape) * (_BLUR * rows.std(axis=0))
    return MinCovDet(random_state=seed).fit(rows + blur), _NONE


def _fit_pca(rows: Float64, seed: int) -> tuple[Any, Float64]:
    from sklearn.decomposition import PCA

    pca = PCA(n_components=_VARIANCE_KEPT, svd_solver="full", random_state=seed).fit(rows)
    limits = np.quantile(np.stack(_t2_and_q(pca, rows)), _HEALTHY_SHARE, axis=1)
    return pca, np.maximum(limits, _SCALE_MIN)


def _fit_svm(rows: Float64, _seed: int) -> tuple[Any, Float64]:
    from sklearn.svm import OneClassSVM

    every = -(-len(rows) // _SVM_ROWS)
    return OneClassSVM(nu=_OUTSIDE, gamma=1.0 / rows.shape[1]).fit(rows[::every]), _NONE


_FITS: dict[str, Callable[[Float64, int], tuple[Any, Float64]]] = {
    "isolation-forest": _fit_forest,
    "covariance": _fit_covariance,
    "pca": _fit_pca,
    "one-class-svm": _fit_svm,
}
KINDS = tuple(_FITS)


def _forest_score(model: Model, rows: Float64) -> Float64:
    return -np.asarray(model.estimator.score_samples(rows))


def _distance(model: Model, rows: Float64) -> Float64:
    away = rows - model.estimator.location_
    squared = np.einsum("ij,jk,ik->i", away, model.estimator.precision_, away)
    found: Float64 = np.sqrt(np.maximum(squared, 0.0))
    return found


def _t2_and_q(pca: Any, rows: Float64) -> tuple[Float64, Float64]:
    away = rows - pca.mean_
    along = away @ pca.components_.T
    off = away - along @ pca.components_
    t2 = (along * along / np.maximum(pca.explained_variance_, _SCALE_MIN)).sum(axis=1)
    return t2, (off * off).sum(axis=1)


def _pca_score(model: Model, rows: Float64) -> Float64:
    t2, q = _t2_and_q(model.estimator, rows)
    found: Float64 = np.sqrt(np.maximum(t2 / model.limits[0], q / model.limits[1]))
    return found


def _svm_score(model: Model, rows: Float64) -> Float64:
    return -np.asarray(model.estimator.decision_function(rows)).ravel()


_SCORES: dict[str, Callable[[Model, Float64], Float64]] = {
    "isolation-forest": _forest_score,
    "covariance": _distance,
    "pca": _pca_score,
    "one-class-svm": _svm_score,
}

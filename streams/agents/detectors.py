"""Detectors by name: ours, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.core.ensemble import Ensemble, EnsembleParams
from models.core.robust import SCORE_MAX, RobustLevel, RobustParams
from streams.core.readings import Float64, Int32, Int64
from streams.errors import SettingsError
from streams.extensions import DETECTORS, load, require
from streams.settings import Detection

FIRST_NAME = RobustLevel.NAME
"""Whose state it is where stored state does not say: there was one detector then."""
Scored = tuple[Float64, Float64, Float64]
WHY_MAX = 500
"""Characters that a detector's words about a reading may have; what is beyond is cut off."""


class Found(Protocol):
    """What a detector says of *n* readings: score, expected and spread, float64[n] each."""

    @property
    def score(self) -> Float64:
        """0 = as usual, larger = stranger."""
        ...

    @property
    def expected(self) -> Float64:
        """What was usual just before."""
        ...

    @property
    def spread(self) -> Float64:
        """How far from it readings usually were."""
        ...

    def why(self, row: int, unit: str) -> str:
        """Return in words what is strange about a reading. Asked for told readings only."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """What a detector without words of its own has found: the distance from what was usual."""

    value: Float64
    score: Float64
    expected: Float64
    spread: Float64

    def why(self, row: int, unit: str) -> str:
        """Return how far the reading is from what was usual."""
        value, expected, spread = (
            float(each[row]) for each in (self.value, self.expected, self.spread)
        )
        way = "above" if value >= expected else "below"
        gap = f"{abs(value - expected):.4g} {unit}".rstrip()
        return f"{gap} {way} the usual {expected:.4g} ± {spread:.2g} {unit}".rstrip()


class Detector(Protocol):
    """Scores the accepted numbers of many series, each against what came before it.

    Causal and deterministic: it knows no clock and no randomness, and what it says of a reading
    is the same, to the bit, however readings are batched
    (:func:`streams.testing.check_detector` tries that).
    """

    @property
    def name(self) -> str:
        """Name and version, such as ``robust-level/1``: it is in every anomaly. State that was
        stored under another name is not read."""
        ...

    def grow(self, series: int) -> None:
        """Make room for series indices below *series*; new ones know nothing."""
        ...

    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return the live arrays by name, each with a row per series (or more): what a snapshot
        reads and a restore writes into."""
        ...

    def score(self, series: Int32, t_ms: Int64, value: Float64) -> Scored:
        """Score readings in order of arrival, and learn them.

        :param series: int32[n]. :param t_ms: int64[n], event time, never before that of the same
            series' last one. :param value: float64[n], finite.
        :returns: score (0 = as usual, larger = stranger), expected and spread, float64[n] each.
        """
        ...


class Examining(Detector, Protocol):
    """A detector that can also say in words what it found. One of another package need not be."""

    def examine(self, series: Int32, t_ms: Int64, value: Float64) -> Found:
        """Score and learn readings as :meth:`score` does."""
        ...


class _RobustLevel:
    """:class:`models.core.robust.RobustLevel`, which asks for no time."""

    name = RobustLevel.NAME

    def __init__(self, params: RobustParams) -> None:
        self._level = RobustLevel(params)
        self.grow, self.state = self._level.grow, self._level.state

    def score(self, series: Int32, t_ms: Int64, value: Float64) -> Scored:
        return self._level.score(series, value)

    def examine(self, series: Int32, t_ms: Int64, value: Float64) -> Plain:
        return Plain(value, *self.score(series, t_ms, value))


def robust_level(settings: Detection) -> Examining:
    """Return our small detector.

    :raises SettingsError: if options are given: it has none.
    """
    _has_no_options(settings, "robust-level")
    return _RobustLevel(RobustParams(settings.half_life, settings.warmup, settings.min_spread))


class _Ensemble(Ensemble):
    """:class:`models.core.ensemble.Ensemble`, under its name."""

    name = Ensemble.NAME


def ensemble(settings: Detection) -> Examining:
    """Return our detector of many kinds of fault, with seasons.

    :raises SettingsError: if options are given: it has none.
    """
    _has_no_options(settings, "ensemble")
    return _Ensemble(EnsembleParams(settings.half_life, settings.warmup, settings.min_spread))


def _has_no_options(settings: Detection, name: str) -> None:
    if settings.options:
        raise SettingsError(f"detection.options: {name} has none; its settings are beside it")


@dataclass(frozen=True, slots=True)
class _Worded:
    """What was found, checked, with the words of the detector."""

    score: Float64
    expected: Float64
    spread: Float64
    words: Callable[[int, str], str]

    def why(self, row: int, unit: str) -> str:
        return str(self.words(row, unit))


class _Checked:
    """A detector of another package: what it gives is checked."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.name = str(detector.name)
        self.grow, self.state = detector.grow, detector.state

    def score(self, series: Int32, t_ms: Int64, value: Float64) -> Scored:
        return self._checked(value, self._detector.score(series, t_ms, value))

    def examine(self, series: Int32, t_ms: Int64, value: Float64) -> Found:
        examine = getattr(self._detector, "examine", None)
        if examine is None:
            return Plain(value, *self.score(series, t_ms, value))
        found: Found = examine(series, t_ms, value)
        scored = self._checked(value, (found.score, found.expected, found.spread))
        return _Worded(*scored, words=found.why)

    def _checked(self, value: Float64, found: Scored) -> Scored:
        score, expected, spread = (np.asarray(each, np.float64) for each in found)
        if not score.shape == expected.shape == spread.shape == value.shape:
            raise ValueError(f"the detector {self.name} gave other numbers of scores than readings")
        # No score is no alarm.
        return np.clip(np.nan_to_num(score, nan=0.0), 0.0, SCORE_MAX), expected, spread


def detector_of(settings: Detection) -> Examining:
    """Return the detector that the settings name.

    :raises SettingsError: if it cannot be loaded, or its options are wrong.
    """
    made: Examining = load(DETECTORS, settings.detector)(settings)
    return made if require(DETECTORS, settings.detector).is_ours else _Checked(made)

"""Aggregates of other packages: what follows from the aggregates of a result.

The engine keeps its windows in columns and merges them by rules of its own, so a package does
not add state to them. It adds what can be computed from a result: a column from columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Protocol

import numpy as np
from prometheus_client import Counter

from streams.core.readings import Float64
from streams.core.results import RETRACTED, WindowResults
from streams.errors import SettingsError
from streams.extensions import AGGREGATES, load
from streams.log import get_logger
from streams.settings import Window
from streams.settings.plugged import OWN_AGGREGATE

_log = get_logger(__name__)
_BASE = ("count", "sum", "min", "max", "mean", "sd")
_FAILED = Counter(
    "headwater_worker_failed_aggregates", "Results without an aggregate, as it failed.", ["name"]
)


class Derived(Protocol):
    """An aggregate that follows from others; an object or a module."""

    @property
    def needs(self) -> Sequence[str]:
        """Of ``first``, ``last``, ``delta``, ``rate`` and quantiles: what the engine has to
        compute for it. ``count``, ``sum``, ``min``, ``max``, ``mean`` and ``sd`` are always there.
        """
        ...

    def compute(self, columns: Mapping[str, Float64]) -> Float64:
        """Return float64[n] of float64[n] columns, row by row: a row's value must not depend on
        its neighbours."""
        ...


def engine_aggregates(window: Window) -> tuple[str, ...]:
    """Return what the engine computes for a window: what is declared, and what that needs."""
    own = [name for name in window.aggregates if OWN_AGGREGATE.fullmatch(name)]
    for name in window.aggregates:
        if name not in own:
            own += [need for need in _load(name).needs if need not in own]
    return tuple(own)


class Derivations:
    """Adds to results what their windows declare beyond what the engine computes."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._of: dict[str, dict[str, Derived]] = {}
        self._hidden: dict[str, set[str]] = {}
        for window in windows:
            more = {n: _load(n) for n in window.aggregates if not OWN_AGGREGATE.fullmatch(n)}
            if more:
                self._of[window.name] = more
                self._hidden[window.name] = set(engine_aggregates(window)) - set(window.aggregates)

    def __call__(self, results: WindowResults) -> WindowResults:
        """Return results of one window with all that it declares."""
        more = self._of.get(results.window[0]) if self._of and len(results) else None
        if not more or results.reason[0] == RETRACTED:
            return results
        columns = {name: np.asarray(getattr(results, name), np.float64) for name in _BASE}
        columns |= results.extra
        hidden = self._hidden[results.window[0]]
        extra = {name: values for name, values in results.extra.items() if name not in hidden}
        extra |= {name: _computed(name, derived, columns) for name, derived in more.items()}
        return replace(results, extra=extra)


def _computed(name: str, derived: Derived, columns: Mapping[str, Float64]) -> Float64:
    n = len(columns["count"])
    found = np.empty(n)
    try:
        with np.errstate(all="ignore"):
            found[:] = derived.compute(columns)
    except Exception as error:  # noqa: BLE001 a failing aggregate must not stop the stream
        _FAILED.labels(name).inc(n)
        _log.warning("an aggregate failed", name=name, error=repr(error))
        return np.full(n, np.nan)
    return found


def _load(name: str) -> Derived:
    derived: Derived = load(AGGREGATES, name)
    if name in {field.name for field in fields(WindowResults)}:
        raise SettingsError(f"an aggregate cannot have the name of a column: {name}")
    unknown = [need for need in derived.needs if not OWN_AGGREGATE.fullmatch(need)]
    if unknown:
        raise SettingsError(f"the aggregate {name} needs {unknown[0]}, which the engine has not")
    return derived

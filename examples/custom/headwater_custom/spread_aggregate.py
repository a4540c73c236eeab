"""An aggregate of one's own: how far the middle half of a window's readings reaches."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import NDArray

needs = ("p25", "p75")


def compute(columns: Mapping[str, NDArray]) -> NDArray:
    """Return the interquartile range."""
    return columns["p75"] - columns["p25"]

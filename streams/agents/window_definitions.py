"""From the settings of a window to its definition in the core."""

from __future__ import annotations

from streams.core.windows import Tumbling, Window
from streams.settings import Window as WindowSettings


def definition_of(window: WindowSettings) -> Window:
    """Return the definition that the engine folds by."""
    return Tumbling(
        name=window.name,
        metrics=tuple(window.metrics),
        grace_ms=window.grace_ms,
        horizon_ms=window.horizon_ms,
        size_ms=window.size_ms,
        offset_ms=window.offset_ms,
    )

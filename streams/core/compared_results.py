"""What comparisons of two metrics say, as window results, from the columns they are held in."""

from __future__ import annotations

import numpy as np

from streams.core.columns import Columns
from streams.core.compared_sides import Sides
from streams.core.comparisons import comparison_of, measured, said_of
from streams.core.readings import Int64, Labels
from streams.core.results import WindowResults
from streams.core.window_rules import WindowRule


def compared(
    rule: WindowRule, sides: Sides, values: Columns, left: Int64, right: Int64
) -> WindowResults:
    """Return the differences or ratios of some values, as results of the left sides.

    :param left: int64[n], rows of *values*, all of the same rule.
    :param right: int64[n], rows of *values*: what each is compared with.
    """
    side = values["series"][left]
    board = sides.sides["board"][side]
    ratio = comparison_of(rule).by == "ratio"
    value = measured(ratio, values["value"][left], values["value"][right])
    return WindowResults(
        tenant=sides.texts.labels(sides.boards["tenant"][board]),
        site=sides.texts.labels(values["site"][left]),
        device=sides.texts.labels(sides.boards["device"][board]),
        metric=sides.texts.labels(sides.sides["metric"][side]),
        start_ms=values["start_ms"][left],
        end_ms=values["end_ms"][left],
        rank=(values["rank"][left] + values["rank"][right]).astype(np.int32),
        last_received_ms=np.maximum(values["received_ms"][left], values["received_ms"][right]),
        kafka_ms=np.maximum(values["kafka_ms"][left], values["kafka_ms"][right]),
        **said_of(Labels.constant(rule.looks_at, len(value)), value),
    )

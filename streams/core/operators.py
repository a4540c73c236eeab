"""Window operators: one per definition, each turning accepted rows into results.

An operator is told the rows it takes and which devices have moved; it is never asked for the
time. All of them keep their state in columns, so that a shard's part can be taken out.
"""

from __future__ import annotations

from typing import Any, Protocol

from streams.core.aggregates import Arrays, Rows
from streams.core.aligned import HoppingOperator
from streams.core.emission import Writer
from streams.core.open_windows import WatermarkOf
from streams.core.readings import Bool, Int32, Int64
from streams.core.registry import Registry
from streams.core.results import WindowResults
from streams.core.sessions import SessionOperator
from streams.core.sliding import SlidingOperator
from streams.core.tumbling import TumblingOperator
from streams.core.windows import Calendar, Hopping, Session, Sliding, Tumbling, Window


class Operator(Protocol):
    """What the engine asks of the windows of one definition."""

    def takes(self, t_ms: Int64, before_ms: Int64) -> Bool:
        """Return which rows some window still takes, given the watermark before each."""
        ...

    def add(self, rows: Rows) -> Int64:
        """Fold rows, in order of arrival; return those that a limit keeps out."""
        ...

    def given_up(self) -> int:
        """Return how many readings that were kept were given up since the start, for a limit."""
        ...

    def emit(self, devices: Int32 | Int64, watermark_ms: Int64) -> list[WindowResults]:
        """Return what closes at these devices' watermarks, and what was corrected."""
        ...

    def show(self, devices: Int32 | Int64) -> list[WindowResults]:
        """Return provisional results of the open windows of quiet devices."""
        ...

    def finish(self, devices: Int32 | Int64) -> list[WindowResults]:
        """Close the open windows of devices that have been quiet for long."""
        ...

    def has_open(self, devices: Int32 | Int64) -> Bool:
        """Return whether each device has an open window."""
        ...

    def sweep(self, watermark_of: WatermarkOf) -> None:
        """Forget what no row can change any more, if enough has gathered.

        :param watermark_of: asked only then.
        """
        ...

    def forget(self, series: Bool, devices: Int64) -> None:
        """Forget all of some series, and of their devices, which have no window open.

        :param series: bool, for every series there is.
        """
        ...

    def snapshot(self, series: Int64) -> dict[str, Any]:
        """Return the state of some series, which are numbered from zero in it."""
        ...

    def restore(self, state: dict[str, Any], series: Int32, device: Int32, site: Int32) -> None:
        """Add the state of a snapshot.

        :param series, device: of now, for each series of the snapshot; ``site`` likewise.
        """
        ...


def operator_for(definition: Window, registry: Registry) -> Operator:
    """Return the operator of a definition."""
    writer = Writer(registry, definition.name)
    if isinstance(definition, Tumbling | Calendar):
        return TumblingOperator(definition, writer)
    if isinstance(definition, Hopping):
        return HoppingOperator(definition, writer)
    if isinstance(definition, Session):
        return SessionOperator(definition, writer)
    if isinstance(definition, Sliding):
        return SlidingOperator(definition, writer)
    raise TypeError(f"no operator for {definition!r}")


__all__ = ["Arrays", "Operator", "operator_for"]

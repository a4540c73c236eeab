"""From results of windows, one metric each, to rows of features: one per device and window.

All windows of a device close at about the same time, so a row waits for its last feature only until
the device's next window: then it is given up as incomplete, as a metric had no reading in it. A
row is made once, of the first final results; corrections make no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan

NOTHING_YET = -1


@dataclass(frozen=True, slots=True)
class Result:
    """A final result of one feature, as it stands in the log."""

    site: str
    start_ms: int
    mean: float
    received_ms: int
    kafka_ms: int
    offset: int
    row: int


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A whole row of a device (tenant, name): ``values`` in the order of the features. ``newest``
    completed it, with the latest receipt and log time of all of them."""

    device: tuple[str, str]
    values: tuple[float, ...]
    newest: Result


@dataclass(slots=True)
class Waiting:
    """What a device has of its newest window: ``values`` is empty once the row was made."""

    start_ms: int = NOTHING_YET
    values: list[float] = field(default_factory=list)
    received_ms: int = 0
    kafka_ms: int = 0


class FeatureRows:
    """The rows that wait for features, by device.

    :param limit: devices; results of further ones are refused.
    """

    def __init__(self, features: Sequence[str], limit: int) -> None:
        self.features = tuple(features)
        self.waiting: dict[tuple[str, str], Waiting] = {}
        self.incomplete = self.refused = 0
        self._limit = limit

    def take(self, device: tuple[str, str], feature: int, found: Result) -> FeatureRow | None:
        """Take a result; return the device's row if it is whole now.

        :param device: tenant and name. :param feature: its number.
        """
        held = self.waiting.get(device)
        if held is None:
            if len(self.waiting) >= self._limit:
                self.refused += 1
                return None
            held = self.waiting[device] = Waiting()
        if found.start_ms > held.start_ms:
            self.incomplete += bool(held.values)
            held.start_ms, held.values = found.start_ms, [nan] * len(self.features)
            held.received_ms = held.kafka_ms = 0
        elif found.start_ms < held.start_ms or not held.values:
            return None
        if not isnan(held.values[feature]):
            return None
        held.values[feature] = found.mean
        held.received_ms = max(held.received_ms, found.received_ms)
        held.kafka_ms = max(held.kafka_ms, found.kafka_ms)
        if any(map(isnan, held.values)):
            return None
        newest = replace(found, received_ms=held.received_ms, kafka_ms=held.kafka_ms)
        values, held.values = tuple(held.values), []
        return FeatureRow(device, values, newest)

"""Rules, storms and the way to the webhook: what an alert costs, and whether all arrive.

Parts (``--only``): ``rules``, 1,000 rules over 10,000 series in memory; ``storm``, 10,000 alerts in
a second through the alerts process, grouped, beside an endpoint that hangs; ``path``, from PUBLISH
to the webhook as ``make bench NAME=main`` measures it, with its own targets.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import main
from benchmarks.alerts.rules import measure_rules
from benchmarks.alerts.storm import measure_storm
from benchmarks.report import Measure, at_most

_PATH = {
    "the same, p50": 100.0,
    "PUBLISH sent to webhook received, p99": 250.0,
    "the same, p99.9": 1000.0,
}


def run(*, seconds: float, rate: float, seed: int, only: Sequence[str]) -> list[Measure]:
    """Measure the parts that are asked for, or all."""
    wanted = only or ("rules", "storm", "path")
    found: list[Measure] = []
    if "rules" in wanted:
        found += measure_rules(seed)
    if "storm" in wanted:
        found += measure_storm(seed)
    if "path" in wanted:
        found += [_held_to(m) for m in main.run(seconds=seconds, rate=rate, seed=seed)]
    return found


def _held_to(measure: Measure) -> Measure:
    """Give a figure of the main benchmark the target that alerts have."""
    bound = _PATH.get(measure.measure)
    return measure if bound is None else at_most(measure.measure, measure.value, "ms", bound)

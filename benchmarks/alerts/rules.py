"""1,000 rules of the declared kinds over 10,000 series, in memory: cost of a pair, and memory."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import Measure, at_most
from streams.agents.forwarding import Forwarder
from streams.agents.peers import make_peers
from streams.agents.rule_definitions import kept_ms, window_rules
from streams.core.readings import Labels
from streams.core.results import WindowResults
from streams.core.rule_engine import RuleEngine
from streams.ports import TIME_MARKER_HEADER, PartitionLogic
from streams.settings import Rule, Settings, Window
from streams.testing import Record

_RULES, _SERIES, _METRICS = 1_000, 10_000, 10
_MINUTE_MS = 60_000
_ROUNDS = 10


def measure_rules(seed: int) -> list[Measure]:
    """Return the cost of a result per rule that matches it, quiet and firing, and the memory."""
    random = np.random.default_rng(seed)
    before = _rss_mib()
    quiet = _engine([_rule(i, over=1e6) for i in range(_RULES)])
    first_us, first_pairs = _cost_us(quiet, random)
    mixed = _engine([_of_each_kind(i) for i in range(_RULES)])
    mixed_us, mixed_pairs = _cost_us(mixed, random)
    memory_mib = _rss_mib() - before
    began = time.perf_counter()
    state = [mixed.snapshot(shard) for shard in range(8)]
    snapshot_ms = (time.perf_counter() - began) * 1000
    assert state
    firing_us, _ = _cost_us(_engine([_rule(0, over=-1e6)]), random)
    expressions = [_expression(i) for i in range(20)]
    expression_us, _ = _cost_us(_engine(expressions), random, rounds=2)
    compared_us = _comparison_us(random)
    groups_us, corrected_us = _among_us(random)
    return [
        at_most("a result per matching rule, nothing fires", first_us, "µs", 2.0),
        Measure("results that match rules, pairs a round", first_pairs, ""),
        at_most("the same, of four kinds in turn", mixed_us, "µs", 2.0),
        Measure("results that match them, pairs a round", mixed_pairs, ""),
        at_most("the same, comparisons with another metric", compared_us, "µs", 2.0),
        at_most("the same, comparisons with the group's median", groups_us, "µs", 2.0),
        Measure("a correction of one of ten of a group, all of it", round(corrected_us, 2), "µs"),
        Measure("the same, on every series a rule that fires", round(firing_us, 2), "µs"),
        Measure("the same, expressions of two terms", round(expression_us, 2), "µs"),
        Measure("memory of 10,000 series and 1,000 rules", round(memory_mib, 1), "MiB"),
        Measure("a snapshot of all shards, not encoded", round(snapshot_ms, 1), "ms"),
    ]


def _rule(i: int, *, over: float) -> Rule:
    kind = {"kind": "threshold", "window": "1m", "name": f"r{i}", "over": over, "clear": over - 1}
    globs = {"metrics": [f"m{i % _METRICS}"]} if i % 2 else {"devices": [f"d{i % 100}*"]}
    return Rule(**kind, **(globs if over > 0 else {}))


def _of_each_kind(i: int) -> Rule:
    kinds: list[dict[str, Any]] = [
        {"kind": "threshold", "over": 1e6},
        {"kind": "rate", "over": 1e6},
        {"kind": "forecast", "over": 1e6, "within_ms": 3_600_000},
        {"kind": "absence", "silent_ms": 3_600_000},
    ]
    globs = {"metrics": [f"m{i % _METRICS}"]} if i % 8 < 4 else {"devices": [f"d{i % 100}*"]}
    return Rule(name=f"r{i}", window="1m", **kinds[i % 4], **globs)


def _comparison_us(random: np.random.Generator) -> float:
    """Return the microseconds of one comparison: a metric of a device under one rule."""
    rules = [
        Rule(
            name=f"c{i}", kind="compare", window="1m", metrics=[f"m{i}"], with_metric="m9", over=1e6
        )
        for i in range(_METRICS - 1)
    ]
    engine = _engine(rules)
    took = []
    for minute in range(4):
        found = _minute(minute, random)
        began = time.perf_counter()
        engine.take(found, minute * _MINUTE_MS, minute)
        took.append(time.perf_counter() - began)
    return median(took[1:]) / (len(rules) * _SERIES / _METRICS) * 1e6


def _among_us(random: np.random.Generator) -> tuple[float, float]:
    """Return the microseconds of a metric of a device under a rule that compares it with its site.

    From the result in ``aggregates`` to the verdict: handed on by group, decoded, held, compared
    once its group is quiet, and judged. Twice: when windows close, and when a tenth of the devices
    is corrected.
    """
    rules = [
        Rule(name=f"g{i}", kind="compare", window="1m", metrics=[f"m{i}"], among="site", over=1e6)
        for i in range(_METRICS)
    ]
    settings = Settings(windows=[Window(name="1m", size_ms=_MINUTE_MS)], rules=rules)
    logic = make_peers(settings)(0, 1)
    forwarder = Forwarder(settings)
    took: list[float] = []
    corrected: list[float] = []
    for minute in range(_ROUNDS + 1):
        found = _minute(minute, random, sites=_SERIES // _METRICS // 10)
        at_ms = minute * _MINUTE_MS
        took.append(_told_s(logic, forwarder, found, at_ms) / _SERIES)
        late = found.take(np.flatnonzero(np.arange(_SERIES) // (_SERIES // 10) == 0))
        late = replace(late, rank=late.rank + 1, mean=late.mean + 1.0)
        corrected.append(_told_s(logic, forwarder, late, at_ms + 10_000) / len(late))
    return median(took[1:]) * 1e6, median(corrected[1:]) * 1e6


def _told_s(logic: PartitionLogic, forwarder: Forwarder, found: WindowResults, at_ms: int) -> float:
    """Return the seconds from results to what rules say of them among devices."""
    began = time.perf_counter()
    records = [
        Record(at_ms + i, at_ms, None, made.value, tuple((made.headers or {}).items()))
        for i, made in enumerate(forwarder.records(found))
    ]
    quiet = Record(at_ms + 999, at_ms + 5_000, None, None, ((TIME_MARKER_HEADER, b"1"),))
    logic.fold([*records, quiet])
    return time.perf_counter() - began


def _expression(i: int) -> Rule:
    text = "mean > 1000.0 && sd < 3.0"
    return Rule(name=f"e{i}", kind="expression", window="1m", expression=text)


def _engine(rules: list[Rule]) -> RuleEngine:
    aggregates = ["rate", "trend", "trend_last"]
    windows = [Window(name="1m", size_ms=_MINUTE_MS, aggregates=aggregates)]
    settings = Settings(windows=windows, rules=rules)
    return RuleEngine(
        window_rules(settings),
        kept_ms(settings),
        shards=8,
        max_series=1_000_000,
        max_open=1_000_000,
        max_compared=1_000_000,
    )


def _cost_us(
    engine: RuleEngine, random: np.random.Generator, *, rounds: int = _ROUNDS
) -> tuple[float, int]:
    """Return the median of the microseconds for a pair, and the pairs; without the first round."""
    took: list[float] = []
    pairs = 0
    for minute in range(rounds + 1):
        found = _minute(minute, random)
        began = time.perf_counter()
        engine.take(found, minute * _MINUTE_MS, minute)
        took.append(time.perf_counter() - began)
        pairs = len(engine._tracks.pair(engine._tracks.intern(found))[0])
    return median(took[1:]) / pairs * 1e6, pairs


def _minute(minute: int, random: np.random.Generator, *, sites: int = 1) -> WindowResults:
    """One result of every series."""
    n = _SERIES
    value = random.normal(20.0, 2.0, n)
    start_ms = np.full(n, minute * _MINUTE_MS, np.int64)
    count = np.full(n, 60, np.int64)
    return WindowResults(
        tenant=Labels.constant("t", n),
        site=Labels.of(f"s{i // _METRICS % sites}" for i in range(n)),
        device=Labels.of(f"d{i // _METRICS}" for i in range(n)),
        metric=Labels.of(f"m{i % _METRICS}" for i in range(n)),
        window=Labels.constant("1m", n),
        source=Labels.constant("cloud", n),
        reason=Labels.constant("closed", n),
        start_ms=start_ms,
        end_ms=start_ms + _MINUTE_MS,
        rank=np.zeros(n, np.int32),
        count=count,
        sum=value * count,
        min=value,
        max=value,
        mean=value,
        sd=np.ones(n),
        last_received_ms=start_ms,
        kafka_ms=start_ms,
        extra={name: np.zeros(n) for name in ("rate", "trend", "trend_last")},
    )


def _rss_mib() -> float:
    """The greatest so far: what an engine adds to it is what it needs."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

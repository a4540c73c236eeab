"""What stored state of a rule engine says of alerts that stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.core.episodes import FIRING, Told
from streams.core.selectors import EVERYTHING, Names
from streams.core.window_rules import Absence, WindowRule

EVERY_METRIC = "*"
"""Metric of an alert that concerns a device."""


@dataclass(frozen=True, slots=True)
class Stands:
    """An alert that was told to fire."""

    rule: WindowRule
    """As far as it was stored: its name, severity and window."""
    names: Names
    results: str | None
    """The window of the results that it was judged on; None: other rules."""
    told: Told


def facts_of(rules: Sequence[WindowRule]) -> dict[str, list[Any]]:
    """Return what is stored of rules, for the day on which they are gone."""
    return {
        rule.name: [
            rule.severity,
            rule.window,
            rule.tells,
            rule.test.silent_ms if isinstance(rule.test, Absence) else 0,
        ]
        for rule in rules
    }


def standing_in(state: Mapping[str, Any]) -> Iterator[Stands]:
    """Yield the alerts that stand in a snapshot."""
    facts = state.get("rules", {})
    tracks = [(Names(t, site, d, m), window) for t, d, m, window, site in state["tracks"]]
    sites = {(names.tenant, names.device): names.site for names, _ in tracks}
    for local, name, pair in state["pairs"]:
        for told in _firing(pair["told"]):
            names, window = tracks[local]
            yield from _stands(facts, name, names, window, told)
    for local, name, absent_ms in state["absent"]:
        if absent_ms >= 0:
            silent_ms = facts[name][3] if name in facts else 0
            told = Told(absent_ms, absent_ms, absent_ms + silent_ms, FIRING)
            names, window = tracks[local]
            yield from _stands(facts, name, names, window, told)
    for name, (tenant, device), several in state["told"]:
        names = Names(tenant, sites[tenant, device], device, EVERY_METRIC)
        for told in _firing(several):
            yield from _stands(facts, name, names, None, told)


def _firing(told: Sequence[Mapping[str, Any]]) -> list[Told]:
    return [Told(**one) for one in told if one["state"] == FIRING]


def _stands(
    facts: Mapping[str, Sequence[Any]], name: str, names: Names, results: str | None, told: Told
) -> Iterator[Stands]:
    severity, window, tells, silent_ms = facts.get(name, ("warning", "", True, 0))
    if tells:
        rule = WindowRule(name, severity, window, Absence(silent_ms), EVERYTHING)
        yield Stands(rule, names, results, told)

"""From ``aggregates`` to ``alert.peers``: what rules compare among devices, by group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.adapters import results
from streams.agents.device_types import traits_by
from streams.agents.rule_definitions import window_rules
from streams.core.comparisons import Chosen, comparison_of, split
from streams.core.placement import group_key, group_partition
from streams.core.results import WindowResults
from streams.core.selectors import Names
from streams.core.series_rows import SeriesRows
from streams.ports import Produce
from streams.settings import Settings
from streams.topics import ALERT_PEERS
from streams.version import VERSION

AMONG_HEADER = "hw-among"
"""Of a frame of ``alert.peers``: which kind of groups it is for."""


_PLACE: dict[str, tuple[Any, Any]] = {"among": (np.int32, 0), "partition": (np.int32, 0)}


class Forwarder:
    """Hands results to the partitions of their groups."""

    def __init__(self, settings: Settings) -> None:
        self._rules = split(window_rules(settings))[1]
        self._chosen = Chosen(self._rules, traits_by(settings.types, settings.tags))
        self._kinds = sorted({comparison_of(rule).among or "" for rule in self._rules})
        self._partitions = settings.topics.partitions
        self._fingerprint = settings.fingerprint("rules")
        self._places = SeriesRows(_PLACE, self._learn)

    def records(self, found: WindowResults) -> list[Produce]:
        """Return a frame for each partition in which some of the results are compared."""
        if not self._rules:
            return []
        row, place = self._places.pair(found, self._chosen.watches(found))
        columns = self._places.columns
        among, partition = columns["among"][place], columns["partition"][place]
        where = among * self._partitions + partition
        return [
            Produce(
                ALERT_PEERS,
                results.encode(
                    found.take(row[where == one]), code=VERSION, settings=self._fingerprint
                ),
                None,
                one % self._partitions,
                {AMONG_HEADER: self._kinds[one // self._partitions].encode()},
            )
            for one in np.unique(where).tolist()
        ]

    def _learn(self, names: Names, window: str) -> dict[str, NDArray[Any]]:
        places = set()
        for number in self._chosen.of(names, window):
            among = comparison_of(self._rules[number]).among or ""
            key = group_key(names.tenant, among, self._chosen.group(number, names))
            places.add((self._kinds.index(among), group_partition(key, self._partitions)))
        rows = np.asarray(sorted(places), np.int32).reshape(-1, 2)
        return {"among": rows[:, 0], "partition": rows[:, 1]}

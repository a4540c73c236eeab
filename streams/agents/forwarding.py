"""From ``aggregates`` to ``alert.peers``: what rules compare among devices, by group."""

from __future__ import annotations

import numpy as np

from streams.adapters import results
from streams.agents.device_types import traits_by
from streams.agents.rule_definitions import window_rules
from streams.core.comparisons import Chosen, comparison_of, split
from streams.core.placement import group_key, group_partition
from streams.core.results import WindowResults
from streams.ports import Produce
from streams.settings import Settings
from streams.topics import ALERT_PEERS
from streams.version import VERSION

AMONG_HEADER = "hw-among"
"""Of a frame of ``alert.peers``: which kind of groups it is for."""


class Forwarder:
    """Hands results to the partitions of their groups."""

    def __init__(self, settings: Settings) -> None:
        self._rules = split(window_rules(settings))[1]
        self._chosen = Chosen(self._rules, traits_by(settings.types, settings.tags))
        self._partitions = settings.topics.partitions
        self._fingerprint = settings.fingerprint("rules")

    def records(self, found: WindowResults) -> list[Produce]:
        """Return a frame for each partition in which some of the results are compared."""
        if not self._rules:
            return []
        places: dict[tuple[str, int], dict[int, None]] = {}
        partitions: dict[tuple[str, str, str], int] = {}
        for row, number, tenant, group in self._chosen.placed(found, self._chosen.watches(found)):
            among = comparison_of(self._rules[number]).among or ""
            partition = partitions.get((tenant, among, group))
            if partition is None:
                partition = group_partition(group_key(tenant, among, group), self._partitions)
                partitions[tenant, among, group] = partition
            places.setdefault((among, partition), {})[row] = None
        return [
            Produce(
                ALERT_PEERS,
                results.encode(
                    found.take(np.asarray([*rows], np.int64)),
                    code=VERSION,
                    settings=self._fingerprint,
                ),
                None,
                partition,
                {AMONG_HEADER: among.encode()},
            )
            for (among, partition), rows in places.items()
        ]

"""Which broker of the cloud an edge goes to, and where when that is gone."""

from __future__ import annotations

import random

from streams.settings import Settings


def in_turn(settings: Settings, rng: random.Random) -> list[str]:
    """Return all brokers in an order by chance, so that a fleet spreads over them.

    Each edge has its own: those of a broker that dies go to all the others.
    """
    found = [settings.mqtt, *settings.edge.brokers]
    rng.shuffle(found)
    return found


def pauses_s(settings: Settings, rng: random.Random) -> tuple[float, float]:
    """Return the shortest and the longest pause between attempts, this edge's own.

    They are 0.5 to 1.5 of those set, so that a fleet that lost its broker comes back spread.
    """
    spread = rng.uniform(0.5, 1.5) / 1000
    return settings.edge.retry_min_ms * spread, settings.edge.retry_max_ms * spread

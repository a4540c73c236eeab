"""How a fleet spreads: over brokers, and over time after it lost one."""

from __future__ import annotations

import random
from collections import Counter

from edge.brokers import in_turn, pauses_s
from streams.settings import Settings

_EDGES = 3_000
BROKERS = ["mqtt://a:1883", "mqtt://b:1883", "mqtt://c:1883"]
SETTINGS = Settings(mqtt=BROKERS[0], edge={"brokers": BROKERS[1:], "retry_min_ms": 1_000})


def test_each_broker_has_its_part_and_leaves_it_to_all_the_others() -> None:
    orders = [in_turn(SETTINGS, random.Random(edge)) for edge in range(_EDGES)]
    assert all(sorted(order) == BROKERS for order in orders)
    for broker in BROKERS:
        mine = [order for order in orders if order[0] == broker]
        assert 0.3 < len(mine) / _EDGES < 0.37
        heirs = Counter(order[1] for order in mine)
        assert len(heirs) == 2
        assert max(heirs.values()) / len(mine) < 0.6


def test_edges_that_lost_their_broker_together_do_not_come_back_together() -> None:
    pauses = [pauses_s(SETTINGS, random.Random(edge)) for edge in range(_EDGES)]
    tenths = Counter(int(shortest * 10) for shortest, _ in pauses)
    assert set(tenths) == set(range(5, 15))  # 0.5 to 1.5 s
    assert max(tenths.values()) / _EDGES < 0.13
    assert all(0.5 <= shortest <= 1.5 and 15 <= longest <= 45 for shortest, longest in pauses)

"""What a disturbed run left in Kafka, against an undisturbed one over the same log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from streams.adapters.log_reader import read_all
from streams.adapters.results import decode_scores, decode_windows
from streams.agents.readings import make_readings
from streams.settings import Settings
from streams.testing import Driver
from streams.topics import AGGREGATES, ANOMALIES, READINGS
from tests.waiting import eventually

Found = tuple[dict[Any, Any], dict[Any, Any]]
"""Windows and scores."""


async def log_of(kafka: str, topics: Sequence[str]) -> dict[str, list[Any]]:
    """Return all records of some topics, in order per partition."""
    found: dict[str, list[Any]] = {topic: [] for topic in topics}
    async for record in read_all(kafka, topics):
        found[record.topic].append(record)
    return found


def windows(values: Iterable[bytes]) -> dict[Any, Any]:
    """Return each window's greatest revision, to the bit; every revision must be one value."""
    seen: dict[Any, Any] = {}
    greatest: dict[Any, Any] = {}
    for value in values:
        w = decode_windows(value)
        floats = [w.sum, w.min, w.max, w.mean, w.sd, *(w.extra[name] for name in sorted(w.extra))]
        for i in range(len(w)):
            key = (w.device[i], w.metric[i], w.window[i], int(w.start_ms[i]))
            rank = int(w.rank[i])
            bits = (int(w.count[i]), int(w.kafka_ms[i]), *(float(x[i]).hex() for x in floats))
            if rank >= 0:
                assert seen.setdefault((key, rank), bits) == bits, (key, rank)
            if rank >= greatest.get(key, (-2,))[0]:
                greatest[key] = (rank, bits)
    return greatest


def scores(values: Iterable[bytes]) -> dict[Any, Any]:
    """Return every score that was told, by the reading's place in the log."""
    told: dict[Any, Any] = {}
    for value in values:
        s = decode_scores(value)
        for i in range(len(s)):
            told[s.device[i], int(s.t_ms[i]), int(s.offset[i]), int(s.row[i])] = s.score[i].hex()
    return told


def undisturbed(settings: Settings, log: Sequence[Any]) -> Found:
    """Run the same log through the logic in memory, without any disturbance."""
    aggregates: list[bytes] = []
    anomalies: list[bytes] = []
    partitions = settings.topics.partitions
    for partition in range(partitions):
        driver = Driver(make_readings(settings), partition=partition, partitions=partitions)
        for record in log:
            if record.partition == partition:
                assert record.offset == len(driver.log)
                headers = dict(record.headers)
                driver.append(record.value, at_ms=record.timestamp, key=record.key, headers=headers)
        driver.run()
        aggregates += driver.values(AGGREGATES)
        anomalies += driver.values(ANOMALIES)
    return windows(aggregates), scores(anomalies)


def found_equal(kafka: str, settings: Settings) -> Found:
    """Wait until what Kafka holds equals the undisturbed run; return it.

    :raises AssertionError: with the number of differences and the first of them, if it does not.
    """
    left: list[Any] = []
    found: Found = ({}, {})

    def equal() -> bool:
        nonlocal left, found
        log = asyncio.run(log_of(kafka, [READINGS, AGGREGATES, ANOMALIES]))
        values = {topic: [r.value for r in records] for topic, records in log.items()}
        found = windows(values[AGGREGATES]), scores(values[ANOMALIES])
        expected = undisturbed(settings, log[READINGS])
        left = [
            (key, one.get(key), other.get(key))
            for one, other in zip(found, expected, strict=True)
            for key in one.keys() | other.keys()
            if one.get(key) != other.get(key)
        ]
        return all(found) and not left

    try:
        eventually(equal, every_s=2.0)
    except AssertionError as error:
        if not left:
            raise
        raise AssertionError(f"{len(left)} differences: {left[:3]}") from error
    return found

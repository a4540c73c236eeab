"""Late readings counted after all: a further revision of each window that they belong to.

The engine has forgotten these windows: it will tell them no more, and fed again it would only
find the reading late once more, or begin a window anew with that one reading inside. So the
window is folded again from all that it holds, by the same engine in memory, and the result
goes to ``aggregates`` as the revision after the greatest. Refused where the readings of the
window are not all there any more: a revision must never count less than the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from streams.adapters import frames, results
from streams.agents.readings import make_readings
from streams.core.placement import partition_of
from streams.core.readings import ABSENT, TIME_OF_RECEIPT, Labels, Readings
from streams.core.results import PROVISIONAL, WindowResults
from streams.covering import definitions_for, spans_over
from streams.errors import DecodeError
from streams.history import Device, History, is_inside
from streams.ports import Produce
from streams.recovery.held import Held
from streams.recovery.ledger import Status
from streams.recovery.plans import Plan
from streams.settings import Detection, Devices, Settings
from streams.testing import Driver
from streams.topics import AGGREGATES
from streams.version import VERSION

REASON = "redriven"
"""Why such a revision was told."""
_NEVER_MS = 1 << 50
"""Longer than any log lasts: no rule of time fires before it is made to."""

_WINDOW = """
SELECT * FROM judged
WHERE tenant = $tenant AND device = $device AND metric = $metric
    AND t_ms >= $start_ms AND t_ms < $end_ms AND isfinite(value)
ORDER BY kafka_offset, row
"""
_CURRENT = """
SELECT * FROM aggregates
WHERE tenant = $tenant AND device = $device AND metric = $metric AND "window" = $window
    AND start_ms = $start_ms AND source = 'cloud'
ORDER BY rank DESC, count DESC, kafka_offset DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One window of one series."""

    tenant: str
    device: str
    metric: str
    window: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Revision:
    """A window as it was told (``None``: never) and as it is with its late readings."""

    place: Place
    rank_before: int | None
    count_before: int
    rank: int
    count: int
    record: Produce = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counting:
    """Plans for late readings, and the revisions that carry them out."""

    plans: list[Plan]
    revisions: list[Revision]


def devices_of(late: Iterable[Held]) -> set[Device]:
    """Return whose history is needed."""
    return {(held.headers.get("hw-tenant", ""), held.device) for held in late}


def count_late(settings: Settings, history: History, late: Sequence[Held]) -> Counting:
    """Plan the revisions that count some late readings."""
    why_not: dict[str, str] = {}
    by_place: dict[Place, set[str]] = {}
    for held in late:
        places = _places(settings, held)
        if not places:
            why_not[held.identity] = (
                "no window counts it again: its metric has only sessions or sliding ones, or it is "
                "text"
            )
        for place in places:
            by_place.setdefault(place, set()).add(held.identity)
    revisions = []
    for place, chosen in sorted(by_place.items(), key=lambda item: item[0]):
        made = _revise(settings, history, place, chosen)
        if isinstance(made, str):
            why_not |= dict.fromkeys(chosen, made)
        elif made is not None:
            revisions.append(made)
    spoilt = {place for place, chosen in by_place.items() if chosen & why_not.keys()}
    # A reading is counted in all of its windows or in none; so are those beside it.
    for place in spoilt:
        for identity in by_place[place]:
            why_not.setdefault(identity, "it shares a window with a reading that cannot be counted")
    kept = [r for r in revisions if r.place not in spoilt]
    plans = [Plan(h, why_not=why_not.get(h.identity, ""), readings=1) for h in late]
    return Counting(plans, kept)


def _places(settings: Settings, held: Held) -> list[Place]:
    try:
        one = frames.decode(held.value)
    except DecodeError:
        return []
    if not np.isfinite(one.value[0]):
        return []
    t_ms, metric = int(one.t_ms[0]), one.metric[0]
    return [
        Place(one.tenant[0], one.device[0], metric, definition.name, start_ms, end_ms)
        for definition in definitions_for(settings, metric)
        for start_ms, end_ms in spans_over(definition, t_ms)
    ]


def _revise(
    settings: Settings, history: History, place: Place, chosen: set[str]
) -> Revision | str | None:
    """Return the revision, nothing if it has been told already, or why it cannot be made."""
    where = {name: getattr(place, name) for name in ("tenant", "device", "metric", "start_ms")}
    definition = next(d for d in definitions_for(settings, place.metric) if d.name == place.window)
    rows = history.rows(_WINDOW, {**where, "end_ms": place.end_ms})
    for row in rows:
        row["is_inside"] = is_inside(row, definition, settings.devices.disorder_ms)
    told = history.rows(_CURRENT, {**where, "window": place.window})
    current = told[0] if told else None
    begun = history.ledger.counted(Status.BEGUN)
    halfway = [row for row in rows if row["source"] in begun and not row["is_inside"]]
    chosen = chosen | {row["source"] for row in halfway}
    inside = [row for row in rows if row["is_inside"] or row["source"] in chosen]
    missing = chosen - {row["source"] for row in rows}
    if missing:
        return "the reading is neither in the lake nor in Kafka any more"
    count_before = int(current["count"]) if current else 0
    if current and count_before == len(inside) and current["reason"] == REASON:
        return None
    before = sum(bool(row["is_inside"]) for row in rows)
    # A run that died may have told its revision, or not.
    if count_before not in (before, before + len(halfway)):
        return (
            f"its window from {place.start_ms} counts {count_before} readings, but {before} are "
            "found in the lake and in Kafka: headwater explain shows them"
        )
    rank_before = int(current["rank"]) if current else None
    rank = max(PROVISIONAL, -1 if rank_before is None else rank_before) + 1
    record = _record(settings, place, inside, rank)
    return Revision(place, rank_before, count_before, rank, len(inside), record)


def _record(
    settings: Settings, place: Place, inside: Sequence[Mapping[str, Any]], rank: int
) -> Produce:
    window = refold(settings, place.window, inside, place.start_ms)
    told = replace(
        window,
        rank=np.full(len(window), rank, np.int32),
        reason=Labels.constant(REASON, len(window)),
    )
    partitions = settings.topics.partitions
    return Produce(
        AGGREGATES,
        results.encode(told, code=VERSION, settings=settings.fingerprint()),
        None,
        partition_of(place.tenant, place.device, partitions),
        {"content-type": frames.CONTENT_TYPE, "hw-partitions": b"%d" % partitions},
    )


def refold(
    settings: Settings, name: str, rows: Sequence[Mapping[str, Any]], start_ms: int
) -> WindowResults:
    """Fold the readings of one window with the engine, in memory.

    :param rows: all that belong inside, in order of arrival, columns as in the lake.
    :returns: one result.
    """
    window = next(w for w in settings.windows if w.name == name)
    alone = settings.model_copy(
        update={
            "windows": [window.model_copy(update={"grace_ms": 0, "horizon_ms": _NEVER_MS})],
            "devices": Devices(skew_ms=_NEVER_MS, idle_ms=_NEVER_MS, idle_final_ms=_NEVER_MS),
            "detection": Detection(metrics=[]),
        }
    )
    driver = Driver(make_readings(alone))
    for row in rows:
        driver.append(frames.encode(_one(row)), at_ms=int(row["kafka_ms"]))
    driver.run()
    driver.tick(at_ms=driver.log[-1].timestamp + 2 * _NEVER_MS)
    told = [results.decode_windows(value) for value in driver.values(AGGREGATES)]
    found = [
        (int(part.rank[i]), part, i)
        for part in told
        for i in range(len(part))
        if int(part.start_ms[i]) == start_ms
    ]
    _, part, at = max(found, key=lambda item: item[0])
    return part.take(np.asarray([at]))


def _one(row: Mapping[str, Any]) -> Readings:
    """A row as a reading that nothing identifies: what is inside was decided before."""
    return Readings(
        tenant=Labels.constant(row["tenant"], 1),
        site=Labels.constant(row["site"], 1),
        device=Labels.constant(row["device"], 1),
        metric=Labels.constant(row["metric"], 1),
        t_ms=np.asarray([row["t_ms"]], np.int64),
        received_ms=np.asarray([row["received_ms"]], np.int64),
        value=np.asarray([row["value"]], np.float64),
        quality=np.asarray([TIME_OF_RECEIPT], np.uint8),
        boot=np.asarray([ABSENT], np.int64),
        seq=np.asarray([ABSENT], np.int64),
        exact_int={},
        text={},
    )

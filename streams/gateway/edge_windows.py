"""From windows that an edge has computed to records of ``aggregates``. Pure.

The gateway checks what workers would never write, puts each result into the partition of its
device, and leaves the bits as they are: the results, and the lineage of the frames that they came
in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from streams.adapters import frames, results
from streams.adapters.results import Lineage
from streams.adapters.rows import MAX_T_MS, check_name
from streams.core.results import EDGE, PROVISIONAL, WindowResults, concat_windows
from streams.errors import DecodeError
from streams.gateway.records import by_partition, partitions_of
from streams.ports import Produce
from streams.topics import AGGREGATES

MAX_FRAMES = 1_000
"""Frames of one batch."""
MAX_EXTRA = 64
"""Further aggregates of one frame."""
MAX_RANK = 1 << 20
"""More revisions than this no window has."""
_REASONS = frozenset(("provisional", "closed", "idle", "late", "retracted"))
_LABELS = ("tenant", "site", "device", "metric", "window", "source", "reason")

Group = tuple[Lineage, str, tuple[str, ...]]
"""What a frame has one of: lineage, window, and the names of its further aggregates."""


def window_records(
    payload: bytes, tenant: str, site: str, partitions: int, max_rows: int
) -> list[Produce]:
    """Return the records of ``aggregates`` for a batch of a site.

    :param payload: inflated: frames of results, one after the other.
    :param partitions: partition count of the topic.
    :param max_rows: results of one record.
    :raises DecodeError: if anything in it is no result that an edge of this site may tell.
    """
    groups: dict[Group, list[WindowResults]] = {}
    for frame in results.split(payload, MAX_FRAMES):
        found, lineage = results.decode_windows(frame), results.lineage(frame)
        _check(found, tenant, site)
        for code in np.unique(found.window.codes).tolist():
            rows = np.flatnonzero(found.window.codes == code)
            group = (lineage, found.window.values[code], tuple(found.extra))
            groups.setdefault(group, []).append(found.take(rows))
    headers = {"hw-partitions": b"%d" % partitions, "content-type": frames.CONTENT_TYPE}
    return [
        Produce(
            AGGREGATES,
            results.encode(part, code=lineage.code, settings=lineage.settings),
            None,
            partition,
            headers,
        )
        for (lineage, _, _), parts in groups.items()
        for partition, part in _placed(concat_windows(parts), partitions, max_rows)
    ]


def _placed(
    found: WindowResults, partitions: int, max_rows: int
) -> Iterator[tuple[int, WindowResults]]:
    """Give the results of each partition, in order, in pieces."""
    for one, rows in by_partition(partitions_of(found.tenant, found.device, partitions)):
        for first in range(0, len(rows), max_rows):
            yield one, _compact(found.take(rows[first : first + max_rows]))


def _check(found: WindowResults, tenant: str, site: str) -> None:
    """Refuse what no edge of this site may tell.

    :raises DecodeError: saying what.
    """
    for kind, expected in (("tenant", tenant), ("site", site), ("source", EDGE)):
        _only(getattr(found, kind), kind, {expected})
    _only(found.reason, "reason", _REASONS)
    for kind in ("device", "metric", "window"):
        labels = getattr(found, kind)
        for code in np.unique(labels.codes).tolist():
            check_name(kind, labels.values[code], slash=kind == "metric")
    if len(found.extra) > MAX_EXTRA:
        raise DecodeError("bad-window", f"{len(found.extra)} aggregates; at most {MAX_EXTRA}")
    for name in found.extra:
        check_name("aggregate", name)
    _all(found.rank >= PROVISIONAL, "rank", found.rank, f"at least {PROVISIONAL}")
    _all(found.rank < MAX_RANK, "rank", found.rank, f"below {MAX_RANK}")
    _all(found.count >= 0, "count", found.count, "at least 0")
    _all(found.start_ms < found.end_ms, "start_ms", found.start_ms, "before end_ms")
    for name in ("start_ms", "end_ms"):
        values = getattr(found, name)
        _all(abs(values) <= MAX_T_MS, name, values, "between the years 1970 and 9999")


def _only(labels: Any, kind: str, allowed: frozenset[str] | set[str]) -> None:
    for code in np.unique(labels.codes).tolist():
        name = labels.values[code]
        if name not in allowed:
            raise DecodeError(
                f"wrong-{kind}",
                f"a result of {kind} {name!r:.60}; expected {' or '.join(sorted(allowed))}",
            )


def _all(holds: Any, name: str, values: Any, expected: str) -> None:
    if not holds.all():
        bad = values[int(np.argmin(holds))]
        raise DecodeError("bad-window", f"{name} is {bad}; expected {expected}")


def _compact(found: WindowResults) -> WindowResults:
    return replace(found, **{name: getattr(found, name).compact() for name in _LABELS})

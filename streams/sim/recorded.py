"""Recorded series as messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge

import orjson

from streams.sim.nab import FOLDER, MACHINES, Point, read_csv
from streams.sim.sensors import Fault, Message


def messages_of(
    points: Sequence[Point],
    site: str,
    device: str,
    metric: str,
    *,
    shift_ms: int = 0,
    boot: int = 1,
) -> Iterator[Message]:
    """Yield a recorded series as messages of one device, numbered from zero under *boot*."""
    topic = f"demo/{site}/{device}"
    for seq, point in enumerate(points):
        t_ms = point.t_ms + shift_ms
        content = {"t_ms": t_ms, "boot": boot, "seq": seq, metric: point.value}
        yield Message(topic, orjson.dumps(content), device, t_ms, Fault.NONE)


def machines(site: str, share: float = 1.0) -> list[Message]:
    """Return all labelled series, in step by their share of the whole.

    :param share: of each series, from its beginning.
    """
    streams = []
    for boot, (name, (device, metric)) in enumerate(sorted(MACHINES.items()), 1):
        points = read_csv(FOLDER / name)
        points = points[: max(1, round(len(points) * share))]
        messages = messages_of(points, site, device, metric, boot=boot)
        streams.append([((i + 1) / len(points), boot, m) for i, m in enumerate(messages)])
    return [message for _, _, message in merge(*streams, key=lambda item: item[:2])]

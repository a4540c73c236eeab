"""The edge: how fast readings become durable, how few bytes they take, how fast a backlog goes up.

``stores`` measures the spool beside SQLite with the same records; ``intake`` a whole group commit;
``wire`` bytes a reading beside JSON; ``drain`` a backlog through mosquitto and gateway into Kafka;
``local`` what local work costs, and how long from a reading to a command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.edge.drain import drained
from benchmarks.edge.intake import taken_in
from benchmarks.edge.local import worked
from benchmarks.edge.stores import compared
from benchmarks.edge.wire import on_the_wire
from benchmarks.report import Measure

PARTS = ("stores", "intake", "wire", "drain", "local")
_BACKLOG = 10_000_000


def run(
    *, seconds: float, seed: int, data: Path | None = None, only: Sequence[str] = ()
) -> list[Measure]:
    """Measure, and return the figures.

    :param seconds: length of the timed parts of the intake.
    :param data: folder of NAB's layout, for what filters leave of it; default: ``data/nab``.
    :param only: parts of ``PARTS``; default: all.
    """
    parts: dict[str, Callable[[], list[Measure]]] = {
        "stores": lambda: compared(_BACKLOG),
        "intake": lambda: taken_in(seconds, _BACKLOG),
        "wire": lambda: on_the_wire(seed, data),
        "drain": lambda: drained(_BACKLOG),
        "local": lambda: worked(seconds),
    }
    unknown = set(only) - set(PARTS)
    if unknown:
        raise SystemExit(f"no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    return [measure for name in only or PARTS for measure in parts[name]()]

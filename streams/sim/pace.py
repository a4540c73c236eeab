"""How fast a recording is replayed, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from streams.errors import HeadwaterError
from streams.sim.sensors import Message


@dataclass(frozen=True, slots=True)
class Pace:
    """``times`` real time; ``None`` is as fast as possible."""

    times: float | None

    @staticmethod
    def of(text: str) -> Pace:
        """Read ``max``, or a number above zero.

        :raises HeadwaterError: if it is neither.
        """
        if text == "max":
            return Pace(None)
        try:
            times = float(text)
        except ValueError:
            times = 0.0
        if not 0 < times < float("inf"):
            raise HeadwaterError(
                f"--speed {text}: expected a number above 0 (1 is real time) or max"
            )
        return Pace(times)

    def due_s(self, first_ms: int, t_ms: int) -> float:
        """Return when a message is due, in seconds after the first one."""
        return 0.0 if self.times is None else (t_ms - first_ms) / 1000 / self.times


class _Rate(ProgressColumn):
    """Messages per second, once there is a rate."""

    def render(self, task: Task) -> Text:
        """Return the cell."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def paced(
    messages: Iterator[Message],
    pace: Pace,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Message]:
    """Yield messages when they are due; what lies back in time does not wait."""
    began = clock()
    first_ms: int | None = None
    for message in messages:
        first_ms = message.t_ms if first_ms is None else first_ms
        ahead_s = pace.due_s(first_ms, message.t_ms) - (clock() - began)
        if ahead_s > 0:
            sleep(ahead_s)
        yield message


def replayed(
    messages: Iterator[Message], pace: Pace, total: int, name: str, console: Console
) -> Iterator[Message]:
    """Yield messages when they are due, with a bar that shows how far it has come."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        for message in paced(messages, pace):
            yield message
            bar.advance(task)
        bar.update(task, completed=total)

"""What ``headwater config rebuild`` and ``apply`` share: rebuild with a bar, say how it went."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.progress import Progress

from streams.adapters.log_reader import ends_of
from streams.recovery.rebuild_run import Job, Outcome, Step, jobs_of, rebuild
from streams.settings import Settings
from streams.terminal import console
from streams.topics import READINGS

_FOLLOW_S = 1.0


def rebuild_windows(
    settings: Settings,
    windows: Sequence[str],
    *,
    since_ms: int = 0,
    follow: bool = False,
    as_json: bool = False,
) -> None:
    """Rebuild windows by name, all that were changed if none is named.

    :raises SettingsError: if a window is not in force, or has been there all along.
    """
    outcomes = asyncio.run(_rebuild(settings, windows, since_ms, follow=follow))
    if as_json:
        sys.stdout.write(orjson.dumps([asdict(outcome) for outcome in outcomes]).decode() + "\n")
    elif not outcomes:
        console().print("no window was changed: there is nothing to rebuild")
    else:
        for outcome in outcomes:
            _show(outcome)


async def _rebuild(
    settings: Settings, windows: Sequence[str], since_ms: int, *, follow: bool
) -> list[Outcome]:
    in_force, jobs = await jobs_of(settings, windows)
    places = [(READINGS, partition) for partition in range(settings.topics.partitions)]
    total = sum((await ends_of(settings.kafka, places)).values())

    async def goes_on() -> bool:
        await asyncio.sleep(_FOLLOW_S)
        return True

    found = []
    with Progress(console=Console(stderr=True)) as progress:
        for job in jobs:
            bar = _Bar(progress, job, total)
            goes = goes_on if follow else None
            found.append(
                await rebuild(in_force, job, since_ms=since_ms, on_step=bar.show, goes_on=goes)
            )
    return found


class _Bar:
    """Shows how far the partitions of a job are, by their offsets."""

    def __init__(self, progress: Progress, job: Job, total: int) -> None:
        names = ", ".join(window.name for window in job.windows)
        self._progress = progress
        self._task = progress.add_task(names, total=total)
        self._reached: dict[int, int] = {}

    def show(self, step: Step) -> None:
        """Take a step."""
        self._reached[step.partition] = step.offset
        self._progress.update(self._task, completed=sum(self._reached.values()))


def _show(outcome: Outcome) -> None:
    out = console()
    out.print(
        f"[green]✓[/] {', '.join(outcome.windows)}: {outcome.told:,} results told from "
        f"{outcome.readings:,} readings"
    )
    if outcome.noted_before:
        out.print(f"  {outcome.noted_before} partitions were done by a run that was ended")
    if outcome.left_out:
        out.print(f"  {outcome.left_out:,} results left out: not all of their readings are there")
    if outcome.open or outcome.correctable:
        out.print(
            f"  of {outcome.open:,} devices a window from before the change is still open, of "
            f"{outcome.correctable:,} it can still be corrected: headwater config rebuild again "
            "later tells what has come"
        )

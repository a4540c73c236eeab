"""What the commands ``quarantine`` and ``redrive`` share: choose, plan, do, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from streams.recovery.counting import Revision
from streams.recovery.held import Held, Selection, parse_time
from streams.recovery.ledger import Action
from streams.recovery.plans import Plan
from streams.recovery.run import Done, find, now_ms, plan_counting, run_on
from streams.recovery.view import print_done, print_plans, summary
from streams.settings import Settings
from streams.terminal import console
from streams.topics import LATE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command found, planned and did (``done`` is ``None`` for a dry run)."""

    action: Action
    plans: Sequence[Plan]
    revisions: Sequence[Revision]
    done: Done | None


def selection(
    device: str | None, reason: str | None, since: str | None, until: str | None, limit: int
) -> Selection:
    """Return what the options select.

    :raises HeadwaterError: if a time is none.
    """
    at_ms = now_ms()
    return Selection(
        device,
        reason,
        None if since is None else parse_time(since, at_ms),
        None if until is None else parse_time(until, at_ms),
        limit,
    )


async def settle(
    settings: Settings,
    topic: str,
    chosen: Selection,
    action: Action,
    plan: Callable[[Held], Plan],
    *,
    yes: bool,
    shift_ms: int = 0,
) -> Outcome:
    """Plan for each selected record, and carry it out if *yes*."""
    cases = await find(settings, topic, chosen)
    plans = [plan(case.held) for case in cases]
    done = None
    if yes:
        async with run_on(settings) as run:
            done = await run.carry_out(action, plans, shift_ms)
    return Outcome(action, plans, (), done)


async def count(settings: Settings, chosen: Selection, *, yes: bool) -> Outcome:
    """Plan the counting of late readings, and do it if *yes*."""
    late = [case.held for case in await find(settings, LATE, chosen)]
    if not late:
        return Outcome(Action.COUNT, (), (), Done() if yes else None)
    if not yes:
        plans, revisions = await plan_counting(settings, late)
        return Outcome(Action.COUNT, plans, revisions, None)
    async with run_on(settings) as run:
        plans, revisions, done = await run.count(late)
    return Outcome(Action.COUNT, plans, revisions, done)


def report(outcome: Outcome, *, as_json: bool) -> None:
    """Print an outcome."""
    if as_json:
        told = summary(outcome.action, outcome.plans, outcome.revisions, outcome.done)
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
        return
    screen = console()
    print_plans(screen, outcome.action, outcome.plans, outcome.revisions)
    print_done(screen, outcome.done)

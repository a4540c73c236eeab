"""A world that a seed drives: the same seed gives the same history, to the byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from typing import Any

from crdt.core.edits import Take
from crdt.torture.world import REGISTERS, ROLES, STARTS, STOP, ViolationError, World, operation

_PART = 25
"""Seeds that a process is given at once."""
_MIN, _HOUR = 60_000, 3_600_000
_WEIGHTS = {
    "edit": 30,
    "deliver": 30,
    "lose": 8,
    "toggle": 3,
    "corrupt": 4,
    "hello": 4,
    "crash": 3,
    "crash before disk": 2,
    "back up": 2,
    "restore": 2,
    "jump": 4,
    "compact": 3,
    "policies": 2,
}
_ALL = (*REGISTERS, STARTS, ROLES, STOP)
Told = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one seed ended."""

    seed: int
    violation: str = ""
    step: int = 0
    """The step that it showed in; 0: at the end."""
    edits: int = 0
    """Acknowledged."""
    refused: int = 0


def play(seed: int, replicas: int, steps: int, told: Told | None = None) -> Outcome:
    """Play one seed.

    :param replicas: hub and spokes together, at least 2.
    :param told: gets every event, whether it was acknowledged, and the final views.
    """
    wild = random.Random(seed)
    world = World(replicas - 1)
    tell = told or _nothing
    edits = step = 0
    try:
        for step in range(1, steps + 1):
            event, acknowledged = _step(world, wild)
            edits += acknowledged is True
            tell({"step": step, **event, "acknowledged": acknowledged})
        step = 0
        world.settle()
        world.check()
    except Exception as error:  # noqa: BLE001 # whatever it is, the seed is what reproduces it
        what = str(error) if isinstance(error, ViolationError) else repr(error)
        return Outcome(seed, what, step, edits, world.refused)
    finally:
        for name, side in world.sides.items():
            twin = side.replica.twin
            read = twin.read(side.replica.reading.policies)
            tell(
                {
                    "final": name,
                    "digest": twin.digest(),
                    "ledger_digest": twin.ledger_digest(),
                    "fields": {path: repr(found.value) for path, found in read.items()},
                }
            )
    return Outcome(seed, edits=edits, refused=world.refused)


def play_all(
    seeds: range, replicas: range, steps: int, jobs: int, told: Told | None = None
) -> Iterator[Outcome]:
    """Yield how each seed ended, in their order, up to the first that broke something.

    :param replicas: from it each seed takes one number in turn.
    :param jobs: processes that play; each seed is played whole by one.
    :param told: as of :func:`play`, with the seed; for one job only.
    """
    if jobs == 1:
        for seed in seeds:
            one = None if told is None else partial(_of_seed, told, seed)
            yield play(seed, replicas_of(seed, replicas), steps, one)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    numbers = [replicas_of(seed, replicas) for seed in seeds]
    try:
        # A part is short, so that who waits soon sees how far it is.
        yield from pool.map(play, seeds, numbers, repeat(steps), chunksize=_PART)
    finally:
        pool.shutdown(cancel_futures=True)


def replicas_of(seed: int, replicas: range) -> int:
    """Return how many replicas a seed is played with."""
    return replicas[seed % len(replicas)]


def _of_seed(told: Told, seed: int, event: dict[str, Any]) -> None:
    told({"seed": seed, **event})


def _step(world: World, wild: random.Random) -> tuple[dict[str, Any], bool | None]:
    (what,) = wild.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))
    name = wild.choice(list(world.sides))
    link = wild.choice(world.links())
    event: dict[str, Any] = {"event": what, "side": name}
    match what:
        case "edit" | "crash before disk":
            request = _request(world, wild, name)
            event["edit"] = repr(request)
            crash = what != "edit"
            return event, world.edit(name, *request, crash_before_disk=crash)
        case "deliver" | "lose":
            count = len(world.waiting[link])
            order = list(range(count))
            if what == "lose":
                order = [n for n in order for _ in range(wild.choice((0, 1, 1, 2)))]
                wild.shuffle(order)
            event = {"event": what, "link": link, "order": order}
            world.deliver(link, order)
        case "toggle":
            event = {"event": what, "link": link}
            world.toggle(link)
        case "corrupt":
            where = (wild.randrange(1 << 16), wild.randrange(1 << 16), wild.randrange(8))
            event = {"event": what, "link": link, "where": where}
            world.corrupt(link, *where)
        case "jump":
            event["by_ms"] = wild.choice((-_HOUR, _MIN, _HOUR, 10 * 365 * 24 * _HOUR))
            world.jump(name, event["by_ms"])
        case "compact":
            event["token"] = f"{wild.getrandbits(32):08x}"
            world.compact(name, event["token"])
        case "policies":
            event["version"] = wild.randrange(5)
            world.change_policies(name, event["version"])
        case _:
            simple = {"hello": world.hello, "crash": world.crash}
            simple |= {"back up": world.back_up, "restore": world.restore}
            simple[what](name)
    return event, None


def _request(world: World, wild: random.Random, name: str) -> tuple[Any, ...]:
    path, number, other = wild.choice(_ALL), wild.randrange(10), wild.random() < 0.3
    ledger = sorted(world.sides[name].replica.twin.ledger)
    if ledger and wild.random() < 0.05:
        return {}, (), (Take(wild.choice(ledger)),)
    if path not in REGISTERS:
        return {}, (), (operation(path, number, other=other),)
    return ({}, (path,), ()) if other else ({path: number}, (), ())


def _nothing(_: dict[str, Any]) -> None:
    return None

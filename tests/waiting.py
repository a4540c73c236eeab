"""Waiting for a condition with a deadline, instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 180.0
"""How long a condition may take on a busy machine: it costs nothing where it is met. A shorter
deadline belongs only where the time itself is what a test is about."""


def eventually(
    probe: Callable[[], T],
    *,
    within_s: float = PATIENCE_S,
    every_s: float = 0.05,
    what: object = "",
) -> T:
    """Return the first truthy value of *probe*.

    :param what: is waited for; a function is asked only when it is missing.
    :raises AssertionError: if there is none in time; the message carries the last value seen.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise _missing(probe, within_s, what, value)
        time.sleep(every_s)


async def eventually_async(
    probe: Callable[[], Awaitable[T]],
    *,
    within_s: float = PATIENCE_S,
    every_s: float = 0.05,
    what: object = "",
) -> T:
    """As :func:`eventually`, for coroutines."""
    deadline = time.monotonic() + within_s
    while True:
        value = await probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise _missing(probe, within_s, what, value)
        await asyncio.sleep(every_s)


def _missing(probe: object, within_s: float, what: object, last: object) -> AssertionError:
    told = what() if callable(what) else what
    return AssertionError(f"not within {within_s} s: {told or probe} (last: {last!r})")

"""Waiting for a condition with a deadline, instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], *, within_s: float = 30.0, every_s: float = 0.05, what: str = ""
) -> T:
    """Return the first truthy value of *probe*.

    :raises AssertionError: if there is none in time; the message carries the last value seen.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or probe} (last: {value!r})")
        time.sleep(every_s)


async def eventually_async(
    probe: Callable[[], Awaitable[T]],
    *,
    within_s: float = 30.0,
    every_s: float = 0.05,
    what: str = "",
) -> T:
    """As :func:`eventually`, for coroutines."""
    deadline = time.monotonic() + within_s
    while True:
        value = await probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or probe} (last: {value!r})")
        await asyncio.sleep(every_s)

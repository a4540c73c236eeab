"""Asking Kafka again, where an error passes by itself: a broker that is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError, KafkaTimeoutError

from streams.log import get_logger

_log = get_logger(__name__)
_PAUSE_S = 1.0
T = TypeVar("T")


async def patiently(what: str, ask: Callable[[], Awaitable[T]], *, pause_s: float = _PAUSE_S) -> T:
    """Ask until there is an answer.

    :param what: said in the log of each failure.
    :raises aiokafka.errors.KafkaError: if it does not pass by itself.
    """
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable and not isinstance(error, KafkaTimeoutError):
                raise
            _log.warning("Kafka does not answer, trying again", what=what, error=repr(error))
        await asyncio.sleep(pause_s)

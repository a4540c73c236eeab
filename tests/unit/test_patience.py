"""Asking Kafka again."""

from __future__ import annotations

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)

from streams.adapters.patience import patiently


def answering(*outcomes):
    left = list(outcomes)

    async def ask():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, len(left)

    return ask


async def test_a_broker_that_is_away_is_asked_until_it_answers():
    away = (NodeNotReadyError(), KafkaConnectionError(), KafkaTimeoutError())
    assert await patiently("it", answering(*away, "there"), pause_s=0) == ("there", 0)


async def test_what_does_not_pass_by_itself_is_raised():
    with pytest.raises(TopicAuthorizationFailedError):
        await patiently("it", answering(TopicAuthorizationFailedError(), "there"), pause_s=0)

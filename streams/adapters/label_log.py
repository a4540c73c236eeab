"""Labels in Kafka: the topic ``labels``, and markers in ``readings`` by which they take effect.

A marker stands at one place of a device's log, so that a replay moves a threshold at the same
reading as the live run did.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from streams.adapters.label_records import MARKER, decode
from streams.adapters.log_reader import read_all
from streams.core.feedback import Label
from streams.core.placement import device_key, partition_of
from streams.ports import TIME_MARKER_HEADER
from streams.settings import Settings
from streams.topics import LABELS, READINGS


async def publish(settings: Settings, label: Label) -> None:
    """Write a label, and the marker that makes the worker heed it.

    :raises aiokafka.errors.KafkaError: if Kafka cannot be reached: say it again, it counts once.
    """
    value = orjson.dumps(label.as_json())
    partition = partition_of(label.tenant, label.device, settings.topics.partitions)
    headers = [(TIME_MARKER_HEADER, b"1"), (MARKER, value)]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all") as producer:
        await producer.send_and_wait(LABELS, value, key=label.id.encode(), partition=partition)
        await producer.send_and_wait(
            READINGS,
            b"",
            key=device_key(label.tenant, label.device),
            headers=headers,
            partition=partition,
        )


async def read_labels(settings: Settings) -> list[Label]:
    """Return all labels that count, in the order in which they were said.

    :raises TopicMismatchError: if there is no topic for them.
    :raises ServiceError: if Kafka cannot be reached.
    """
    held: dict[str, Label] = {}
    async for record in read_all(settings.kafka, [LABELS]):
        label = decode(record.value)
        held[label.id] = label
    return sorted((one for one in held.values() if not one.removed), key=_said)


def _said(label: Label) -> tuple[Any, ...]:
    return label.at_ms, label.id

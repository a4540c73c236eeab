"""Endpoints that answered 410 Gone: nothing more is sent to them, whatever process runs.

The note of it lies in ``deliveries``, under one key in every partition, so that whoever reads a
part of the outbox knows of it. A webhook whose address has changed since is another endpoint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import orjson
from aiokafka import AIOKafkaProducer

from streams.adapters.log_reader import read_all
from streams.errors import HeadwaterError
from streams.settings import Settings
from streams.topics import DELIVERIES

_PREFIX = "endpoint/"


def is_note(key: bytes) -> bool:
    """Whether a record of ``deliveries`` is about an endpoint, and not a message."""
    return key.startswith(_PREFIX.encode())


@dataclass(slots=True)
class Disabled:
    """Which endpoints are disabled.

    :param targets: endpoint -> a hash of its address, which may hold a secret.
    """

    targets: dict[str, str]
    names: set[str] = field(default_factory=set)

    @staticmethod
    def of(settings: Settings) -> Disabled:
        """Return that of the endpoints of settings, none of them disabled."""
        addresses = {hook.name: hook.url for hook in settings.webhooks}
        addresses |= {way.name: "" for way in settings.channels}
        return Disabled(
            {n: hashlib.sha256(url.encode()).hexdigest()[:16] for n, url in addresses.items()}
        )

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take a note; without a value it is taken back."""
        name = key.decode().removeprefix(_PREFIX)
        if value and orjson.loads(value)["target"] == self.targets.get(name):
            self.names.add(name)
        else:
            self.names.discard(name)

    def note(self, name: str) -> tuple[bytes, bytes]:
        """Return key and value of the note that an endpoint is disabled."""
        content = {"status": "disabled", "endpoint": name, "target": self.targets[name]}
        return f"{_PREFIX}{name}".encode(), orjson.dumps(content)


async def write_note(
    producer: AIOKafkaProducer, partitions: int, key: bytes, value: bytes | None
) -> None:
    """Write a note to every partition."""
    for partition in range(partitions):
        await producer.send_and_wait(DELIVERIES, value, key=key, partition=partition)


async def read_disabled(settings: Settings) -> list[str]:
    """Return the names of disabled endpoints."""
    found = Disabled.of(settings)
    async for record in read_all(settings.kafka, [DELIVERIES]):
        if is_note(record.key):
            found.take(record.key, record.value)
    return sorted(found.names)


async def enable(settings: Settings, name: str) -> None:
    """Let an endpoint be sent to again.

    :raises HeadwaterError: if it is not disabled.
    """
    there = await read_disabled(settings)
    if name not in there:
        raise HeadwaterError(f"{name} is not disabled; disabled: {', '.join(there) or 'none'}")
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all") as producer:
        key = f"{_PREFIX}{name}".encode()
        await write_note(producer, settings.topics.partitions, key, None)

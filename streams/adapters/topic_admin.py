"""Makes and checks the Kafka topics, so that no default of the broker decides."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from streams.errors import TopicMismatchError
from streams.settings import Topics
from streams.topics import TopicSpec, specs

_VISIBLE_S = 120.0
_OF_TOPIC = 1
"""Kafka's ``DYNAMIC_TOPIC_CONFIG``: a value that is set of the topic itself, and no default."""
_Config = dict[str, tuple[str, bool]]
"""Name -> value, and whether it is set of the topic itself."""


async def apply(bootstrap: str, settings: Topics) -> list[str]:
    """Create the topics that are missing, set what differs of others, and check all.

    :returns: what was done, in words.
    :raises TopicMismatchError: if one exists with another number of partitions.
    """
    wanted = specs(settings)
    done: list[str] = []
    async with _admin(bootstrap) as admin:
        present = set(await admin.list_topics())
        missing = [spec for spec in wanted if spec.name not in present]
        if missing:
            await _create(admin, missing)
            await _until_visible(admin, missing)
            done += [f"created {spec.name}" for spec in missing]
        done += await _set_differences(admin, wanted)
    await check(bootstrap, settings)
    return done


async def check(bootstrap: str, settings: Topics) -> None:
    """Compare every topic with what it must be.

    :raises TopicMismatchError: naming each topic and setting, what is there and what is expected.
    """
    wanted = specs(settings)
    async with _admin(bootstrap) as admin:
        partitions = await _partitions(admin, [spec.name for spec in wanted])
        problems = [
            f"{spec.name}: {_found(partitions.get(spec.name))}, expected {spec.partitions}"
            for spec in wanted
            if partitions.get(spec.name) != spec.partitions
        ]
        there = [spec for spec in wanted if partitions.get(spec.name)]
        for spec, held in zip(there, await _configs(admin, there), strict=True):
            problems += [
                f"{spec.name}: {name} is {_value(held, name)}, expected {spec.config[name]}"
                for name in _differences(spec, held)
            ]
    if problems:
        raise TopicMismatchError(
            "\n".join(problems)
            + "\nMissing topics, other settings of topics: headwater topics apply. Other partition "
            "counts: settings [topics]; they are fixed when a topic is made."
        )


def _found(partitions: int | None) -> str:
    return "does not exist" if partitions is None else f"has {partitions} partitions"


class _admin:  # noqa: N801 used as a context manager, like a function
    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> Any:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def _create(admin: Any, missing: list[TopicSpec]) -> None:
    answer = await admin.create_topics(
        [
            NewTopic(s.name, s.partitions, s.replication, topic_configs=dict(s.config))
            for s in missing
        ]
    )
    for name, code, *_ in answer.topic_errors:
        error = for_code(code)
        # Another process may have made it meanwhile.
        if code and error is not TopicAlreadyExistsError:
            raise TopicMismatchError(f"{name}: the broker refused to create it: {error.__name__}")


async def _until_visible(admin: Any, created: list[TopicSpec]) -> None:
    async with asyncio.timeout(_VISIBLE_S):
        while True:
            seen = await _partitions(admin, [spec.name for spec in created])
            if all(seen.get(spec.name) == spec.partitions for spec in created):
                return
            await asyncio.sleep(0.05)


async def _partitions(admin: Any, names: list[str]) -> dict[str, int]:
    present = set(await admin.list_topics())
    described = await admin.describe_topics([name for name in names if name in present])
    return {
        topic["topic"]: sum(p["leader"] >= 0 for p in topic["partitions"]) for topic in described
    }


async def _configs(admin: Any, topics: list[TopicSpec]) -> list[_Config]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, spec.name) for spec in topics]
    by_name: dict[str, _Config] = {}
    for response in await admin.describe_configs(resources) if resources else []:
        for _, _, _, name, entries in response.resources:
            by_name[name] = {entry[0]: (entry[1], entry[3] == _OF_TOPIC) for entry in entries}
    return [by_name[spec.name] for spec in topics]


def _value(held: _Config, name: str) -> str | None:
    return held[name][0] if name in held else None


def _differences(spec: TopicSpec, held: _Config) -> list[str]:
    return [name for name, value in spec.config.items() if _value(held, name) != value]


async def _set_differences(admin: Any, wanted: list[TopicSpec]) -> list[str]:
    """Set what differs and wait until it shows; return what it was."""
    done: list[str] = []
    async with asyncio.timeout(_VISIBLE_S):
        for spec, held in zip(wanted, await _configs(admin, wanted), strict=True):
            if differs := _differences(spec, held):
                await _set(admin, spec, held)
                done += [f"{spec.name}: {name} = {spec.config[name]}" for name in differs]
        while done:
            held_now = await _configs(admin, wanted)
            if not any(map(_differences, wanted, held_now)):
                break
            await asyncio.sleep(0.05)
    return done


async def _set(admin: Any, spec: TopicSpec, held: _Config) -> None:
    """Set a topic as it must be; the request replaces what is set, so all else is repeated."""
    kept = {name: value for name, (value, is_own) in held.items() if is_own}
    resource = ConfigResource(
        ConfigResourceType.TOPIC, spec.name, configs={**kept, **dict(spec.config)}
    )
    for response in await admin.alter_configs([resource]):
        for code, message, *_ in response.resources:
            if code:
                raise TopicMismatchError(f"{spec.name}: the broker refused its settings: {message}")

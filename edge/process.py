"""The edge process: readings, twins and commands of a site, while the cloud is in reach or not."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from crdt.log import Log
from edge.brokers import in_turn, pauses_s
from edge.coap import resources
from edge.command_desk import join, open_desk, pass_time
from edge.command_http import add_commands
from edge.commands import CommandDesk
from edge.http import edge_app
from edge.local.http import add_local
from edge.local.wiring import Local
from edge.model_scores import SiteModels
from edge.models import models_running
from edge.node import EdgeNode
from edge.readings import ReadingsPath, open_disk, wall_ms
from edge.spool.spool import free_ballast
from streams.adapters.envelopes import DOWN, UP, Opener, Sealer
from streams.adapters.mqtt_link import MqttLink
from streams.adapters.replica_keys import Registry, load_signer
from streams.adapters.twin_records import reading_of
from streams.core.placement import partition_of
from streams.errors import SettingsError
from streams.log import get_logger
from streams.ops import serve
from streams.settings import Settings

_log = get_logger(__name__)
_VERIFY_S = 60.0
"""Pause between roll calls while all seems well."""


async def run_edge(settings: Settings, stop: asyncio.Event) -> None:
    """Run until *stop* is set.

    :raises LogError: if the twin log cannot be used.
    :raises SpoolError: if the spool cannot be used.
    :raises SettingsError: if a key is missing or cannot be used.
    :raises OSError: if the port is taken.
    """
    edge = settings.edge
    identity = {"tenant": edge.tenant, "site": edge.site}
    # What is opened now may have to write, on a disk that is full.
    free_ballast(open_disk(edge))
    log = Log(edge.data / "twins.db")
    node = EdgeNode(log, edge.site, reading_of(settings.twins), wall_ms, edge.devices)
    desk = open_desk(settings)
    base, rng = f"hw/v1/{edge.tenant}/{edge.site}", random.Random()
    link = MqttLink(
        in_turn(settings, rng),
        settings.broker,
        f"edge-{edge.tenant}-{edge.site}",
        retry_s=pauses_s(settings, rng),
        subscribe=(f"{base}/twin/down", f"{base}/cmd"),
    )

    def send(envelope: bytes) -> None:
        if link.connected:
            link.publish(f"{base}/twin/up", envelope)

    node.send = send
    sign(node, settings)
    join(desk, link, base)
    hears = {f"{base}/twin/down": node.hear, f"{base}/cmd": desk.hear}
    link.on_message = lambda topic, payload: hears[topic](payload)
    link.on_connect = lambda: _greeted(node, desk)
    node.keep_rolls(partial(partition_of, edge.tenant, partitions=settings.topics.partitions))
    _log.info("edge", **identity, **node.status())
    try:
        readings = ReadingsPath(settings)
        app = edge_app(node, lambda: link.trouble, identity, readings)
        add_commands(app, desk, edge.site, settings.commands)
        local = Local(settings, desk, readings.tell, wall_ms) if edge.local.enabled else None
        recent = None
        if local is not None:
            readings.taken, recent = local.work.take, local.work.recent
            readings.local_status = local.work.status
            add_local(app, local.work)
        readings.coap = resources(node, readings.latest, edge.intake.max_observers, recent)
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(serve(app, settings.ops.host, settings.ops.edge_port))
            carrying = await parts.enter_async_context(readings.running())
            models = await parts.enter_async_context(models_running(node, edge.models, app))
            if local is not None:
                local.work.score_by(SiteModels(settings.scoring, models.live))
                carrying += await parts.enter_async_context(local.running())
            link.start()
            greeting = _greet(node, link, edge.retry_min_ms / 1000, edge.retry_max_ms / 1000)
            await _until(stop, (greeting, pass_time(desk)), carrying)
            await link.stop()
    finally:
        node.close()
        desk.close()


def sign(node: EdgeNode, settings: Settings) -> None:
    """Let a node sign and verify, if the settings name keys.

    :raises SettingsError: if a key is missing or cannot be used.
    """
    registry, edge = settings.twins.registry, settings.edge
    if registry is None:
        return
    if edge.key is None:
        raise SettingsError("twins.registry needs edge.key, the key of this site")
    sealer = Sealer(load_signer(edge.key), UP)
    opener = Opener(Registry(registry), DOWN)
    node.seal = lambda parts: sealer.seal(edge.tenant, edge.site, parts)
    node.answer = partial(setattr, sealer, "answer")
    node.open = lambda data: opener.open(data, edge.tenant, edge.site)


def _greeted(node: EdgeNode, desk: CommandDesk) -> None:
    desk.call()
    _log.info("comparing", devices=node.call())


async def _greet(node: EdgeNode, link: MqttLink, min_s: float, max_s: float) -> None:
    """Say hello again while something is not known to be in sync, ever less often."""
    pause_s = min_s
    verified_s = time.monotonic()
    while True:
        await asyncio.sleep(pause_s)
        verify = time.monotonic() - verified_s >= _VERIFY_S
        if verify:
            verified_s = time.monotonic()
        if verify and link.connected:
            node.call()
        greeted = node.greet(all_devices=False) if link.connected else 0
        pause_s = min(2 * pause_s, max_s) if greeted else min_s


async def _until(
    stop: asyncio.Event,
    works: Sequence[Coroutine[Any, Any, None]],
    carrying: Sequence[asyncio.Task[None]],
) -> None:
    """Do all *works* until asked to stop; if one or another task fails, so does this."""
    tasks = [asyncio.create_task(work) for work in works]
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait((*tasks, stopping, *carrying), return_when=asyncio.FIRST_COMPLETED)
    for one in (*tasks, stopping):
        one.cancel()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    for task in done:
        task.result()


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run_edge(settings, stop)

    asyncio.run(run())

"""Makes the desk of a site from its settings, and joins it to the link."""

from __future__ import annotations

import asyncio
from functools import partial

from crdt.command_log import CommandLog
from crdt.sqlite_file import LogError
from edge.boot_clock import BootClock
from edge.commands import CommandDesk
from streams.adapters.command_records import limits_of
from streams.adapters.envelopes import COMMAND_DOWN, COMMAND_UP, Opener, Sealer
from streams.adapters.mqtt_link import MqttLink
from streams.adapters.replica_keys import Registry, load_signer
from streams.log import get_logger
from streams.settings import Settings

_log = get_logger(__name__)
_TICK_S = 0.5


def open_desk(settings: Settings) -> CommandDesk:
    """Return the desk; it signs and verifies if the settings name keys.

    :raises LogError: if the log of commands cannot be used.
    :raises SettingsError: if a key cannot be used.
    """
    edge, registry = settings.edge, settings.twins.registry
    log = CommandLog(edge.data / "commands.db", settings.commands.max_remembered)
    limits = limits_of(settings.commands)
    desk = CommandDesk(log, edge.site, limits, BootClock(), settings.topics.partitions)
    if registry is not None and edge.key is not None:
        sealer = Sealer(load_signer(edge.key), COMMAND_UP)
        opener = Opener(Registry(registry), COMMAND_DOWN)
        desk.seal = lambda parts: sealer.seal(edge.tenant, edge.site, parts)
        desk.answer = partial(setattr, sealer, "answer")
        desk.open = lambda data: opener.open(data, edge.tenant, edge.site)
    return desk


def join(desk: CommandDesk, link: MqttLink, base: str) -> None:
    """Let a desk speak through a link, under the topics of its site."""

    def send(envelope: bytes) -> None:
        if link.connected:
            link.publish(f"{base}/cmd/status", envelope)

    desk.send = send


async def pass_time(desk: CommandDesk) -> None:
    """Let deadlines pass, and say again what was not answered, until cancelled."""
    while True:
        await asyncio.sleep(_TICK_S)
        try:
            desk.pass_time()
        except LogError as error:
            # Nothing was changed; the next tick tries again.
            _log.error("commands cannot be stored", error=str(error))

"""The newest status of every command, and those before it, followed from ``commands.status``."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from prometheus_client import Gauge

from streams.api.follower import Follower
from streams.topics import COMMANDS_STATUS

_COMMANDS = Gauge("headwater_api_commands", "Commands in the read model.")
Status = dict[str, Any]
Key = tuple[str, str, str]


class CommandStates(Follower):
    """Statuses by tenant, device and id of the command, each number once."""

    def __init__(self, bootstrap: str, partitions: int, max_listed: int) -> None:
        """Make an empty model.

        :param max_listed: commands that are kept; beyond, the oldest are forgotten.
        """
        super().__init__(COMMANDS_STATUS, bootstrap, partitions)
        self._max_listed = max_listed
        self._commands: OrderedDict[Key, list[Status]] = OrderedDict()
        self._news: set[asyncio.Event] = set()

    def take(self, record: Any) -> None:
        """Take a status, unless it is known."""
        status: Status = orjson.loads(record.value)
        key = (status["tenant"], status["device"], status["id"])
        known = self._commands.setdefault(key, [])
        if known and status["number"] <= known[-1]["number"]:
            return
        known.append(status)
        while len(self._commands) > self._max_listed:
            self._commands.popitem(last=False)

    def taken(self) -> None:
        """Count, and wake who watches."""
        _COMMANDS.set(len(self._commands))
        for event in self._news:
            event.set()

    def newest(self, tenant: str, device: str) -> list[Status]:
        """Return the newest status of every command of a device, the last issued last."""
        return [
            statuses[-1]
            for (whose, name, _), statuses in self._commands.items()
            if (whose, name) == (tenant, device)
        ]

    def statuses(self, tenant: str, device: str, id_: str) -> list[Status]:
        """Return all statuses of a command, in order."""
        return list(self._commands.get((tenant, device, id_), ()))

    async def watch(self, tenant: str, device: str) -> AsyncIterator[Status]:
        """Yield the newest status of every command of a device, and then each new one."""
        news, told = asyncio.Event(), dict[str, int]()
        self._news.add(news)
        try:
            while True:
                for status in self._newer(tenant, device, told):
                    told[status["id"]] = status["number"]
                    yield status
                await news.wait()
                news.clear()
        finally:
            self._news.discard(news)

    def _newer(self, tenant: str, device: str, told: Mapping[str, int]) -> list[Status]:
        """Return what a watcher was not told yet; of a command new to it the newest status."""
        found: list[Status] = []
        for newest in self.newest(tenant, device):
            number = told.get(newest["id"])
            statuses = self.statuses(tenant, device, newest["id"])
            found += [
                s for s in statuses if (s is newest if number is None else s["number"] > number)
            ]
        return found

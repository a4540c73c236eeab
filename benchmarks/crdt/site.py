"""A site and the cloud in one process: the edge's node, the worker's logic, no sockets between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from crdt.log import Log
from edge.node import EdgeNode
from streams.adapters.twin_records import edit_record, reading_of
from streams.agents.twins import make_twins
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import up_records
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

TENANT, SITE = "bench", "north"


class Site:
    """One edge and the owner of its devices; counts what goes over the link."""

    def __init__(self, folder: Path, devices: Sequence[str], settings: Settings) -> None:
        self.settings = settings
        self.edge = EdgeNode(
            Log(folder / "twins.db"), SITE, reading_of(settings.twins), self._clock, devices
        )
        self.edge.keep_rolls(lambda device: 0)
        self.cloud = Driver(make_twins(settings))
        self.up: list[bytes] = []
        self.edge.send = self.up.append
        self.sent_bytes = 0
        self.linked = True
        self._told = 0

    def edit_in_cloud(self, device: str, fields: dict[str, object]) -> None:
        """Append an edit to the log; it is folded with the next :meth:`talk`."""
        self._append([edit_record(TENANT, device, fields, 1)])

    def fold(self) -> None:
        """Fold what is in the log; what it says waits for the link."""
        self.cloud.run()

    def talk(self) -> None:
        """Carry what both sides have to say until they are silent."""
        while True:
            sent, self.up[:] = list(self.up), []
            for envelope in sent:
                self.sent_bytes += len(envelope)
                delivery = Delivery(f"hw/v1/{TENANT}/{SITE}/twin/up", envelope, 1, 1, 0)
                self._append(up_records(delivery, self.settings, None))
            self.cloud.run()
            down = self.cloud.records("twin.down")[self._told :]
            self._told += len(down)
            for record in down:
                self.sent_bytes += len(record.value or b"")
                self.edge.hear(record.value or b"")
            if not down and not self.up:
                return

    def forget_sent(self) -> None:
        """Lose what is on its way, as a cut link does."""
        self.up.clear()
        self._told = len(self.cloud.records("twin.down"))

    def _append(self, records: Sequence[Produce]) -> None:
        for record in records:
            self.cloud.append(
                record.value, at_ms=self._clock(), key=record.key, headers=record.headers
            )

    @staticmethod
    def _clock() -> int:
        return time.time_ns() // 1_000_000

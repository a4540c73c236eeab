"""A site and the cloud in one process: the edge's node, the worker's logic, no sockets between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from crdt.log import Log
from edge.node import EdgeNode
from streams.adapters.envelopes import DOWN, UP, Opener, Sealer
from streams.adapters.replica_keys import Registry, load_signer
from streams.adapters.twin_records import edit_record, reading_of
from streams.agents.twins import make_twins
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import down_batches, up_records
from streams.pki import Pki
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

TENANT, SITE = "bench", "north"


class _FromKafka:
    """A record as a consumer gives it."""

    def __init__(self, record: Produce) -> None:
        self.value, self.headers = record.value, list(record.headers.items())


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
        self._sealer, opener = self._sign(folder)
        self.openers = {"twin": opener}
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
                self._append(up_records(delivery, self.settings, self.openers))
            self.cloud.run()
            down = self.cloud.records("twin.down")[self._told :]
            self._told += len(down)
            for tenant, site, parts in down_batches([_FromKafka(record) for record in down]):
                envelope = self._sealer.seal(tenant, site, parts)
                self.sent_bytes += len(envelope)
                self.edge.hear(envelope)
            if not down and not self.up:
                return

    def forget_sent(self) -> None:
        """Lose what is on its way, as a cut link does."""
        self.up.clear()
        self._told = len(self.cloud.records("twin.down"))

    def _sign(self, folder: Path) -> tuple[Sealer, Opener]:
        """Let the edge sign, and return what the gateway signs and verifies with."""
        pki = Pki(folder / "pki")
        pki.init(["localhost"], datetime.now(UTC))
        issued = pki.issue(TENANT, SITE, datetime.now(UTC)).folder
        up = Sealer(load_signer(issued / "replica.key"), UP)
        down = Opener(Registry(issued / "registry.json"), DOWN)
        self.edge.seal = lambda parts: up.seal(TENANT, SITE, parts)
        self.edge.open = lambda data: down.open(data, TENANT, SITE)
        hub = load_signer(pki.folder / "hub.key")
        return Sealer(hub, DOWN), Opener(Registry(pki.registry), UP)

    def _append(self, records: Sequence[Produce]) -> None:
        for record in records:
            self.cloud.append(
                record.value, at_ms=self._clock(), key=record.key, headers=record.headers
            )

    @staticmethod
    def _clock() -> int:
        return time.time_ns() // 1_000_000

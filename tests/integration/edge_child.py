"""An edge as a child process, and what it says of itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from streams.services.ports import free_port
from tests import wall_clock, web
from tests.waiting import PATIENCE_S, eventually
from tests.wall_clock import WallClock


@dataclass
class EdgeChild:
    """One edge process; its data live on between starts."""

    broker: str
    folder: Path
    site: str
    config: str = ""
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    module: tuple[str, ...] = ("streams.cli.main", "edge")

    def start(self) -> EdgeChild:
        settings = self.folder / f"{self.site}.toml"
        settings.write_text(self.config)
        variables = {
            "HEADWATER_CONFIG": str(settings),
            "HEADWATER_MQTT": self.broker,
            "HEADWATER_EDGE__SITE": self.site,
            "HEADWATER_EDGE__DATA": str(self.folder / self.site),
            "HEADWATER_EDGE__RETRY_MAX_MS": "500",
            "HEADWATER_EDGE__UPLINK__SPREAD_MS": "0",
            "HEADWATER_EDGE__INTAKE__HTTP_PORT": str(self.http_port),
            # What a busy machine stores after it has said that it did not would be there twice.
            "HEADWATER_EDGE__INTAKE__TIMEOUT_MS": str(int(1_000 * PATIENCE_S)),
            "HEADWATER_OPS__EDGE_PORT": str(self.port),
            **self.env,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.module],
                env={**os.environ, **variables},
                stderr=log,
            )
        eventually(self.ready, what=f"edge ready; log: {self.log}")
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"{self.site}.log"

    def ready(self) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def get(self, path: str) -> dict[str, Any]:
        answer = web.get(f"http://127.0.0.1:{self.port}{path}")
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def status(self) -> dict[str, Any]:
        return self.get("/v1/status")

    def waiting(self, lane: str = "readings") -> int:
        """Readings of a lane that are not in Kafka yet."""
        lanes = {one["lane"]: one["readings"] for one in self.status()["lanes"]}
        return int(lanes[lane])

    def metric(self, name: str) -> float:
        text = web.get(f"http://127.0.0.1:{self.port}/metrics").text
        found = re.search(rf"^headwater_edge_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def post(self, rows: list[dict[str, Any]]) -> httpx.Response:
        return web.post(f"http://127.0.0.1:{self.http_port}/v1/readings", json=rows)

    def kill(self) -> None:
        """End at once, as by kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def edge_node(
    broker: str,
    folder: Path,
    site: str,
    config: str = "",
    clock: WallClock | None = None,
    **env: str,
) -> Iterator[EdgeChild]:
    """A running edge; it is killed at the end."""
    child = EdgeChild(broker, folder, site, config, env)
    if clock is not None:
        child.module = (wall_clock.MODULE, "edge")
        child.env |= clock.env()
    try:
        yield child.start()
    finally:
        child.kill()

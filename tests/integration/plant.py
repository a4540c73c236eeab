"""A running system of its own (gateway, worker, sink) and people who type commands at it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
from paho.mqtt import publish

from streams.adapters import topic_admin
from streams.adapters.log_reader import read_all
from streams.audit import audit
from streams.services import supervisor
from streams.settings import Settings
from tests.conftest import Servers
from tests.waiting import PATIENCE_S, eventually

TOML = """
[[windows]]
name = "w"
size_ms = 10000
horizon_ms = 60000

[[mappings]]
topic = "p/{device}"
site = "north"

[devices]
skew_ms = 60000
idle_ms = 1000
idle_final_ms = 2000

[gateway]
max_payload_bytes = 4096
max_rejected_bytes = 1024

[sink]
lake_flush_ms = 300
flush_ms = 100
"""


class Plant:
    """Servers, processes and a folder; commands run as users run them."""

    def __init__(self, servers: Servers, home: Path, toml: str = TOML) -> None:
        self.servers, self.home = servers, home
        (home / "headwater.toml").write_text(toml)
        self.env = servers.env(home)
        self.env["HEADWATER_CONFIG"] = str(home / "headwater.toml")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            with (self.home / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "streams.cli.main", name],
                    env=self.env, cwd=self.home, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
        for name in names:
            eventually(lambda name=name: self._is_ready(name), what=f"{name} ready")

    def end(self) -> None:
        for child in self.processes.values():
            child.terminate()
        for child in self.processes.values():
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _is_ready(self, name: str) -> bool:
        port = self.env[f"HEADWATER_OPS__{name.upper()}_PORT"]
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def command(self, *words: object, **env: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "streams.cli.main", *map(str, words)],
            env={**self.env, **env}, cwd=self.home, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: object, code: int = 0, **env: str) -> str:
        """Return what a command prints, once it has ended with *code*."""
        child = self.command(*words, **env)
        out, err = child.communicate(timeout=2 * PATIENCE_S)
        assert child.returncode == code, (words, child.returncode, out[-3000:], err[-3000:])
        return out or err

    def ask(self, *words: object, code: int = 0, **env: str):
        """Return what a command says with ``--json``."""
        return json.loads(self.run(*words, "--json", code=code, **env))

    def publish(self, device: str, *messages: object, topic: str = "p/{device}") -> None:
        host, _, port = self.env["HEADWATER_MQTT"].rpartition("//")[2].partition(":")
        topic = topic.format(device=device)
        packed = [
            {"topic": topic, "qos": 1, "payload": m if isinstance(m, bytes) else json.dumps(m)}
            for m in messages
        ]
        publish.multiple(packed, hostname=host, port=int(port))

    def records(self, topic: str, device: str | None = None) -> list:
        async def go():
            found = []
            async for record in read_all(self.env["HEADWATER_KAFKA"], [topic]):
                headers = {k: v.decode() for k, v in record.headers}
                if device is None or headers.get("hw-device") == device:
                    found.append(record)
            return found

        return asyncio.run(go())

    def settings(self) -> Settings:
        """The settings of its processes, for what is called in this one."""
        from streams.toml_lines import read_toml

        values = read_toml(self.home / "headwater.toml").values
        return self.servers.settings(self.home, **values)


def balanced(plant: Plant):
    """Return what ``audit`` says, once it holds: sinks come after the results."""
    settings = plant.settings()
    eventually(lambda: asyncio.run(audit(settings)).holds, every_s=0.2, what="the audit holds")

    def held():
        # What was open at the look before may be told since, and not be in the sinks.
        child = plant.command("audit", "--json")
        out, err = child.communicate(timeout=2 * PATIENCE_S)
        assert child.returncode in (0, 1), err[-3000:]
        return json.loads(out) if child.returncode == 0 else None

    return eventually(held, what="the audit holds")


def all_told(plant: Plant) -> None:
    """Wait until no result is to come: each window is told for good, and the sinks have it."""
    settings = plant.settings()

    def told():
        found = asyncio.run(audit(settings))
        return found.holds and found.in_open_windows == 0

    eventually(told, every_s=0.2, what="every window is told for good")


def start_plant(state: Path, toml: str = TOML) -> Plant:
    """Servers of one's own with a running gateway, worker and sink."""
    addresses = supervisor.up(state / "servers", ["kafka", "mqtt", "influx"])
    asyncio.run(topic_admin.apply(addresses["kafka"], Settings().topics))
    home = state / "home"
    home.mkdir()
    plant = Plant(Servers(state / "servers", addresses), home, toml)
    plant.start("gateway", "worker", "sink")
    return plant

"""The first hour: the commands and files of the tutorial, as a newcomer takes them over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from paho.mqtt import publish

from streams.services import supervisor
from streams.services.ports import free_port
from tests.conftest import OPS_PORTS
from tests.documents import blocks, titled
from tests.waiting import PATIENCE_S, eventually

PAGE = "tutorial.md"
LEARNT = 64
"""Readings after which the detector of the page knows what is usual."""


class Newcomer:
    """A person with a folder, a broker, and several terminals."""

    def __init__(self, home: Path, broker: str) -> None:
        self.home, self.broker = home, broker
        self.ops = {f"HEADWATER_OPS__{name.upper()}_PORT": str(free_port()) for name in OPS_PORTS}
        mine = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = {**mine, **self.ops, "PATH": path}
        self.terminals: list[subprocess.Popen[bytes]] = []

    def adapted(self, code: str) -> str:
        """Change the host, and nothing else."""
        host, _, port = self.broker.rpartition("//")[2].partition(":")
        code = code.replace("mqtt://localhost:1883", self.broker)
        return code.replace('"localhost", 1883', f'"{host}", {port}')

    def write(self, name: str, code: str, mode: str = "w") -> None:
        with (self.home / name).open(mode) as file:
            file.write(self.adapted(code))

    def type(self, command: str, *, fails: str | None = None) -> str:
        """Return what a command prints; nothing if it fails with that message."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.home,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if fails is not None and fails in done.stderr:
            return ""
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def terminal(self, command: str) -> subprocess.Popen[bytes]:
        log = (self.home / f"terminal-{len(self.terminals)}.log").open("wb")
        child = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.home,
            env=self.env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        self.terminals.append(child)
        return child

    def shown(self, terminal: subprocess.Popen[bytes]) -> str:
        log = self.home / f"terminal-{self.terminals.index(terminal)}.log"
        return log.read_text(errors="replace")

    def publish(self, reading: dict[str, object]) -> None:
        host, _, port = self.broker.rpartition("//")[2].partition(":")
        topic = "plant/north/boiler-1"
        publish.single(topic, json.dumps(reading), qos=1, hostname=host, port=int(port))

    def ready(self) -> bool:
        try:
            return all(
                httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == httpx.codes.OK
                for port in self.ops.values()
            )
        except httpx.TransportError:
            return False


def end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@pytest.fixture
def newcomer(tmp_path):
    broker = supervisor.up(tmp_path / "broker", ["mqtt"])["mqtt"]
    home = tmp_path / "home"
    home.mkdir()
    person = Newcomer(home, broker)
    # What `headwater run` runs comes from the clone's Procfile.
    (home / "Procfile").write_text((Path(__file__).parents[2] / "Procfile").read_text())
    yield person
    for child in person.terminals:
        if child.poll() is None:
            end(child)
    supervisor.down(home / ".headwater")
    supervisor.down(tmp_path / "broker")


def counted(newcomer: Newcomer) -> int:
    """How many readings are in windows of the boiler that were told."""
    told = newcomer.type(command("inspect aggregates") + " --limit 0 --json")
    rows = [json.loads(line) for line in told.splitlines()]
    return sum({row["start_ms"]: row["count"] for row in rows if row["rank"] >= 0}.values())


def command(containing: str) -> str:
    lines = [line for block in blocks(PAGE) for line in block.code.splitlines()]
    return next(line for line in lines if line.startswith("headwater") and containing in line)


def test_a_device_of_ones_own_is_on_screen_after_ten_lines_of_settings(newcomer):
    settings = titled(PAGE, "headwater.toml")
    assert len(settings.strip().splitlines()) <= 10
    newcomer.write("headwater.toml", settings)
    newcomer.type(command("config check"))
    system = newcomer.terminal(command("run"))
    eventually(newcomer.ready, what="all processes ready")
    newcomer.write("boiler.py", titled(PAGE, "boiler.py"))
    newcomer.terminal("python boiler.py")

    def windows():
        return re.search(r"boiler-1.*5s", newcomer.type(command("inspect aggregates")))

    eventually(windows, every_s=1, what="a window of one's own on screen")
    eventually(
        lambda: (
            "boiler-1" in newcomer.type(command("lake query"), fails="the sink process fills it")
        ),
        every_s=2,
    )
    newcomer.publish({"temperature": "hot"})
    rejected = eventually(
        lambda: "temperature" in (out := newcomer.type(command("inspect rejected"))) and out,
        every_s=1,
    )
    assert "hot" in rejected

    end(system)
    newcomer.type(command("webhooks secret"))
    listening = newcomer.terminal(command("webhooks listen").replace("8200", str(free_port())))
    port = listening.args[2].rpartition(" ")[2]
    newcomer.write(
        "headwater.toml", "\n" + titled(PAGE, "added to headwater.toml").replace("8200", port), "a"
    )
    newcomer.terminal(command("run"))
    eventually(newcomer.ready, what="all processes ready again")
    eventually(lambda: counted(newcomer) >= LEARNT, every_s=1, what="what is usual is known")
    newcomer.publish({"temperature": 95})
    eventually(
        lambda: "temperature of boiler-1 was 95" in " ".join(newcomer.shown(listening).split()),
        what="the alert on screen",
    )

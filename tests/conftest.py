"""Fixtures: real servers, started once per run through the code that users run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streams.adapters import topic_admin
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Settings

OPS_PORTS = ("gateway", "worker", "rollup", "sink", "alerts", "api", "edge")

# No property is about speed: a busy machine must not fail it.
# What every change must pass is the same each time; whoever runs the tests by hand draws anew.
settings.register_profile(
    "any-speed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("any-speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=10.0, help="length of long tests")
    parser.addoption("--seeds", type=int, default=200, help="seeds of long tests")


def pytest_configure() -> None:
    # A Kafka of a test lives for seconds: what the JVM's second compiler does for it, it never gets
    # back (half of the time that a start takes).
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long_wanted = "long" in (config.getoption("-m") or "")
    for item in items:
        folder = Path(item.fspath).parent.name
        if folder in ("integration", "scenario"):
            item.add_marker(getattr(pytest.mark, folder))
        if "long" in item.keywords and not long_wanted:
            item.add_marker(pytest.mark.skip(reason="minutes of torture: make test-long"))


class Servers:
    """Addresses of a set of real servers, and what a process needs to use them."""

    def __init__(self, state: Path, addresses: dict[str, str]) -> None:
        self.state = state
        self.addresses = addresses

    def stop(self, name: str) -> None:
        """Stop one server; its port and its data stay."""
        supervisor.stop_one(self.state, name)

    def kill(self, name: str) -> None:
        """Kill -9, and wait until it is gone."""
        os.kill(self.pid(name), signal.SIGKILL)
        self.stop(name)

    def start(self, name: str) -> None:
        """Start a stopped server again."""
        supervisor.up(self.state, [name])

    def pid(self, name: str) -> int:
        """Return the process id of a server, for signals."""
        return supervisor.running(self.state)[name].pid

    def env(self, home: Path, **overrides: str) -> dict[str, str]:
        """Environment of a Headwater process with its own state under *home* and free ports."""
        env = {
            **os.environ,
            "HEADWATER_STATE": str(home),
            "HEADWATER_LAKE": str(home / "lake"),
            **{f"HEADWATER_{name.upper()}": found for name, found in self.addresses.items()},
            **{f"HEADWATER_OPS__{name.upper()}_PORT": str(free_port()) for name in OPS_PORTS},
        }
        env.update(overrides)
        return env

    def settings(self, home: Path, **sections: object) -> Settings:
        """Settings for these servers; *sections* override, as in the file."""
        ops = {f"{name}_port": free_port() for name in OPS_PORTS}
        values = {"ops": ops, "state": home, "lake": home / "lake", **self.addresses, **sections}
        return Settings(**values)


@contextmanager
def fresh_servers(state: Path) -> Iterator[Servers]:
    """Kafka with all topics and nothing in them, mosquitto and InfluxDB."""
    with supervisor.services(state) as addresses:
        asyncio.run(topic_admin.apply(addresses["kafka"], Settings().topics))
        yield Servers(state, addresses)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Kafka with all topics, mosquitto and InfluxDB, shared by the whole run."""
    with fresh_servers(tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture(scope="session")
def kafka(servers: Servers) -> str:
    return servers.addresses["kafka"]


@pytest.fixture(scope="session")
def mqtt(servers: Servers) -> str:
    return servers.addresses["mqtt"]


@pytest.fixture(scope="session")
def influx(servers: Servers) -> str:
    return servers.addresses["influx"]


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Servers]:
    """A set of one's own (about 8 s): for tests that stop servers or count whole topics."""
    with fresh_servers(tmp_path / "servers") as found:
        yield found


@pytest.fixture(scope="module")
def module_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A set for the tests of one file, which use names of their own."""
    with fresh_servers(tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``headwater`` processes; all end with the test, their logs are in tmp_path."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *command: str, env: dict[str, str], module: str = "streams.cli.main"
    ) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{command[0]}-{len(started)}.log").open("wb")
        child = subprocess.Popen(
            [sys.executable, "-m", module, *command],
            env=env,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()
    for child in started:
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

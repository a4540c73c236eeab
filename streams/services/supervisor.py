"""Start, stop and find the real servers of one state folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from streams.services import influx, kafka, mosquitto
from streams.services.cache import locked
from streams.services.ports import is_open
from streams.services.process import Running, start, stop, wait_ready
from streams.settings import Settings, named_servers

NAMES = ("kafka", "mqtt", "influx")
_READY_S = 180.0
_COMMANDS = {"kafka": kafka.command, "mqtt": mosquitto.command, "influx": influx.command}
_FILE = "services.json"
_LOCK = "services.lock"

Report = Callable[[str, str], None]
"""Called with the name of a server and what happens to it."""


@dataclass(frozen=True, slots=True)
class Status:
    """One server: who started it, where it is, whether it answers."""

    name: str
    address: str
    ours: bool
    up: bool
    pid: int | None


def _quiet(_name: str, _what: str) -> None:
    """Report to nobody."""


def named(name: str) -> str | None:
    """Return the address of an existing server that the environment or the settings name."""
    return named_servers().get(name)


def up(state: Path, only: Sequence[str] = NAMES, *, report: Report = _quiet) -> dict[str, str]:
    """Start what does not run yet; return the address of every server.

    Servers that the settings name (``HEADWATER_KAFKA``, ``kafka = ...``) are used, never started.
    Addresses are written to ``<state>/services.json``, where the settings find them.

    :raises ServiceError: if one cannot be installed or does not become ready.
    """
    state = state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    with locked(state / _LOCK):
        running, begun = _read(state), []
        for name in only:
            existing = named(name)
            if existing:
                report(name, f"using {existing}")
            elif name in running and running[name].alive():
                report(name, f"already runs at {running[name].address}")
            else:
                report(name, "starting (a first start installs it)")
                running[name] = _start(name, state / name)
                begun.append(name)
                _write(state, running)
        # All of them at once: each takes its time.
        for name in begun:
            _wait_ready(running[name])
            report(name, f"ready at {running[name].address}")
    return {name: named(name) or running[name].address for name in only}


def down(state: Path, *, report: Report = _quiet) -> None:
    """Stop every server that :func:`up` started in this state folder."""
    state = state.absolute()
    for name, server in _read(state).items():
        stop(server)
        report(name, "stopped")
    (state / _FILE).unlink(missing_ok=True)


def stop_one(state: Path, name: str) -> None:
    """Stop one server; its data and its port stay for :func:`up` to start it again."""
    stop(_read(state.absolute())[name])


def running(state: Path) -> dict[str, Running]:
    """Return the servers that were started in a state folder."""
    return _read(state.absolute())


def status(settings: Settings) -> list[Status]:
    """Return what is known of each server."""
    started = _read(settings.state.absolute())
    rows = []
    for name in NAMES:
        server = started.get(name)
        address = str(getattr(settings, name))
        ours = server is not None and named(name) is None
        up_now = is_open(address.rpartition("//")[2].partition(",")[0])
        rows.append(Status(name, address, ours, up_now, server.pid if server and ours else None))
    return rows


@contextmanager
def services(state: Path, only: Sequence[str] = NAMES) -> Iterator[dict[str, str]]:
    """Servers for the length of a block; yields their addresses."""
    try:
        yield up(state, only)
    finally:
        down(state)


def _start(name: str, root: Path) -> Running:
    root.mkdir(parents=True, exist_ok=True)
    address, command = _COMMANDS[name](root)
    return start(name, address, command, root, {})


def _wait_ready(server: Running) -> None:
    wait_ready(server, _READY_S, _PROBES[server.name](server.address))
    if server.name == "influx":
        influx.make_database(server.address)


def _kafka_probe(address: str) -> Callable[[], bool]:
    return lambda: is_open(address)


def _mqtt_probe(address: str) -> Callable[[], bool]:
    return lambda: is_open(address.rpartition("//")[2])


def _influx_probe(address: str) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return httpx.get(f"{address}/ping", timeout=2).status_code == httpx.codes.NO_CONTENT
        except httpx.TransportError:
            return False

    return answers


_PROBES = {"kafka": _kafka_probe, "mqtt": _mqtt_probe, "influx": _influx_probe}


def _read(state: Path) -> dict[str, Running]:
    path = state / _FILE
    if not path.exists():
        return {}
    held = orjson.loads(path.read_bytes())["processes"]
    return {name: Running(**fields) for name, fields in held.items()}


def _write(state: Path, running: dict[str, Running]) -> None:
    addresses = {name: server.address for name, server in running.items()}
    processes = {name: server.as_json() for name, server in running.items()}
    content = orjson.dumps({**addresses, "processes": processes}, option=orjson.OPT_INDENT_2)
    temporary = state / f"{_FILE}.new"
    temporary.write_bytes(content)
    temporary.replace(state / _FILE)

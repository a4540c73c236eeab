"""A child process that outlives the command which started it, found again by id and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from streams.errors import ServiceError

_STOP_S = 20.0
_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this very process started: their parent must take their exit status."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started server. ``started_at`` tells it from another process that got its id later."""

    name: str
    address: str
    pid: int
    started_at: float
    log: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _process(self) is not None

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def start(name: str, address: str, command: list[str], cwd: Path, env: dict[str, str]) -> Running:
    """Start a server in a session of its own, its output in ``<cwd>/<name>.log``.

    :raises ServiceError: if the program is not there.
    """
    log = cwd / f"{name}.log"
    with log.open("ab") as out:
        try:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"{name}: cannot start {command[0]}: {error}") from error
    _children[child.pid] = child
    return Running(name, address, child.pid, psutil.Process(child.pid).create_time(), str(log))


def stop(running: Running) -> None:
    """Stop a server: SIGTERM, and SIGKILL after a deadline; one that has gone is no error.

    :raises ServiceError: if it survives both.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = _process(running)
        if process is None:
            return
        process.send_signal(number)
        if _ended(process):
            return
    raise ServiceError(f"{running.name}: process {running.pid} does not end")


def _ended(process: psutil.Process) -> bool:
    child = _children.get(process.pid)
    try:
        if child is not None:
            child.wait(_STOP_S)
            del _children[process.pid]
        else:
            process.wait(_STOP_S)
    except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
        return False
    return True


def wait_ready(running: Running, deadline_s: float, probe: Callable[[], bool]) -> None:
    """Wait until *probe* returns true.

    :raises ServiceError: if the server ends or the deadline passes; the message ends with the
        tail of its log.
    """
    deadline = time.monotonic() + deadline_s
    while not probe():
        if not running.alive():
            raise ServiceError(f"{running.name} ended while starting:\n{tail(running.log)}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{running.name} is not ready after {deadline_s:.0f} s:\n{tail(running.log)}"
            )
        time.sleep(0.05)


def tail(log: str, lines: int = 15) -> str:
    """Return the last lines of a log."""
    path = Path(log)
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _process(running: Running) -> psutil.Process | None:
    try:
        process = psutil.Process(running.pid)
        if abs(process.create_time() - running.started_at) > 1.0:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            _ended(process)
            return None
    except psutil.NoSuchProcess:
        return None
    return process

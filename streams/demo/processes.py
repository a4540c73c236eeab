"""The processes of the Procfile as children that a story may kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from streams.errors import ServiceError
from streams.services.process import tail

PROCFILE = Path(__file__).parents[2] / "Procfile"
_READY_S = 180.0
_STOP_S = 20.0


def read_procfile(path: Path = PROCFILE) -> dict[str, list[str]]:
    """Return name -> command of each line ``name: command``.

    :raises ServiceError: naming a line that is not of this form.
    """
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, command = line.partition(":")
        if not colon or not command.split():
            raise ServiceError(f"{path}:{number}: expected name: command, found {line!r}")
        found[name.strip()] = command.split()
    return found


@dataclass(slots=True)
class Child:
    """One running process and where its health is."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    restarts: int = 0

    def why_not_ready(self) -> str:
        """Return what ``/readyz`` says is missing; nothing if the process can do its work."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=1.0)
        except httpx.TransportError as error:
            return f"no answer on port {self.port}: {error}"
        return "" if answer.status_code == httpx.codes.OK else answer.text

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def metric(self, start: str) -> float:
        """Return the sum of all samples of ``/metrics`` whose line begins so; 0 if none."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=2.0).text
        except httpx.TransportError:
            return 0.0
        return sum(float(r.rsplit(" ", 1)[1]) for r in text.splitlines() if r.startswith(start))


class Processes:
    """Starts the Procfile's processes, and ends all of them whatever happens.

    :param special: environment of single processes, over the common one.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        ports: Mapping[str, int],
        logs: Path,
        special: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._env = {**os.environ, **env}
        self._special = special
        self._ports = ports
        self._logs = logs
        self._commands = read_procfile()
        self.children: dict[str, Child] = {}

    def start_all(self) -> None:
        """Start every process and wait until each is ready.

        :raises ServiceError: if one ends or is not ready in time, with the tail of its log.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        for name in self._commands:
            self.start(name)
        for name in self._commands:
            self.wait_ready(name)

    def start(self, name: str) -> None:
        """Start one process; its output goes to a file."""
        program, *arguments = self._commands[name]
        if program == "headwater":
            # The same interpreter, whether or not its scripts are on the PATH.
            command = [sys.executable, "-m", "streams.cli.main", *arguments]
        else:
            command = [program, *arguments]
        log = self._logs / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                env={**self._env, **self._special.get(name, {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        before = self.children.get(name)
        restarts = before.restarts + 1 if before else 0
        self.children[name] = Child(name, process, self._ports[name], log, restarts)

    def wait_ready(self, name: str) -> None:
        """Wait until a process can do its work.

        :raises ServiceError: if it ends or is not ready in time.
        """
        child = self.children[name]
        deadline = time.monotonic() + _READY_S
        while why := child.why_not_ready():
            if not child.alive() or time.monotonic() > deadline:
                what = f"is not ready ({why})" if child.alive() else "has ended"
                raise ServiceError(f"{name} {what}:\n{tail(str(child.log))}")
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """End a process with SIGKILL."""
        process = self.children[name].process
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop_all(self) -> list[str]:
        """End all; return the names of those that SIGTERM did not end in time."""
        for child in self.children.values():
            if child.alive():
                child.process.terminate()
        stubborn = []
        for child in self.children.values():
            try:
                child.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                stubborn.append(child.name)
                child.process.kill()
                child.process.wait()
        return stubborn

"""CPU and memory of a child process over time, and what it prints about its progress."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from streams.errors import ServiceError
from streams.services.process import tail

_PAUSE_S = 0.04
_STOP_S = 30.0


@dataclass(slots=True)
class Watched:
    """A child process in a session of its own; its output goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path
    samples: list[tuple[float, float, int]] = field(default_factory=list)
    """Wall clock in s, CPU seconds used so far (with all children), resident bytes."""

    @staticmethod
    def start(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Watched:
        """Start a command."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Watched(process, log)

    def until(self, done: Callable[[], bool], patience_s: float) -> float:
        """Sample until *done* returns true; return the wall clock in s at which it had done so.

        :raises ServiceError: with the tail of the log, if the process ends or time runs out.
        """
        deadline = time.monotonic() + patience_s
        while not done():
            ended = not self.sample()
            if ended and done():
                break
            if ended or time.monotonic() > deadline:
                what = (
                    f"ended ({self.process.poll()})" if ended else f"took over {patience_s:.0f} s"
                )
                raise ServiceError(f"{self.log.stem} {what}:\n{tail(str(self.log), 30)}")
            time.sleep(_PAUSE_S)
        now = time.time()
        self.sample()
        return now

    def sample(self) -> bool:
        """Note CPU and memory; return whether the process runs."""
        if self.process.poll() is not None:
            return False
        cpu, resident = 0.0, 0
        try:
            parent = psutil.Process(self.process.pid)
            for process in (parent, *parent.children(recursive=True)):
                with process.oneshot():
                    times = process.cpu_times()
                    cpu += times.user + times.system
                    resident += process.memory_info().rss
        except psutil.Error:
            return self.process.poll() is None
        self.samples.append((time.time(), cpu, resident))
        return True

    def cpu_s(self, begin_s: float, end_s: float) -> float:
        """Return the CPU seconds used between two points of the wall clock."""
        at, used, _ = np.asarray(self.samples).T
        low, high = np.interp([begin_s, end_s], at, used)
        return float(high - low)

    def peak_bytes(self) -> int:
        """Return the greatest resident size that was seen."""
        return max(resident for _, _, resident in self.samples)

    def said(self, word: str) -> float | None:
        """Return the time in s of the line ``WORD NANOSECONDS``, if it was printed yet."""
        for line in self.log.read_text(errors="replace").splitlines():
            name, _, number = line.partition(" ")
            if name == word and number.isdigit():
                return int(number) / 1e9
        return None

    def stop(self) -> None:
        """End the process by SIGTERM, or SIGKILL where it does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

"""Free loopback ports."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from itertools import chain
from pathlib import Path

HOST = "127.0.0.1"

# Below what Linux (32768) and macOS (49152) hand out to connections of their own: nobody gets
# one of these by chance between the choice and the start of the server that listens there.
_PORTS = range(17_000, 32_000)


def free_port() -> int:
    """Return a loopback port that nothing listens on, and that is not given again soon.

    All processes of a user take turns through one range, so that two that start servers at the
    same time never choose the same port.

    Raises:
        OSError: if no port of the range is free.
    """
    turns = Path(tempfile.gettempdir()) / f"headwater-ports-{os.getuid()}"
    turns.touch(mode=0o600)
    with turns.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        last = file.read(5)
        start = int(last) + 1 if last.isdigit() else random.choice(_PORTS)
        for port in chain(range(start, _PORTS.stop), _PORTS):
            if _can_bind(port):
                file.seek(0)
                file.write(str(port))
                return port
    raise OSError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free on {HOST}")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def is_open(address: str, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host or HOST, int(port)), timeout=timeout_s):
            return True
    except OSError:
        return False

"""mosquitto as one child process, loopback only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from streams.errors import ServiceError
from streams.services.cache import cache_root, locked
from streams.services.ports import HOST, free_port

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
# A PUBACK means only that the broker has the message, so it saves every second, keeps what
# its queue holds by bytes and not by count, and forgets sessions that never come back.
_SETTINGS = """listener {port} {host}
allow_anonymous true
persistence true
persistence_location {root}/
autosave_interval 1
max_inflight_messages 0
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 268435456
message_size_limit 16777216
persistent_client_expiration 7d
connection_messages false
log_dest stderr
log_type error
log_type warning
sys_interval 5
"""
_INSTALL = "apt-get install mosquitto (or name a running broker in HEADWATER_MQTT)"


def install() -> str:
    """Return the path of mosquitto; as root on Debian it is installed where missing.

    :raises ServiceError: if it is missing and cannot be installed here.
    """
    found = shutil.which("mosquitto", path=_PATH)
    if found:
        return found
    if os.geteuid() or shutil.which("apt-get") is None:
        raise ServiceError(f"the MQTT broker mosquitto is missing: {_INSTALL}")
    cache_root().mkdir(parents=True, exist_ok=True)
    with locked(cache_root() / "mosquitto.lock"):  # apt-get lets one at a time, and fails others.
        return shutil.which("mosquitto", path=_PATH) or _installed()


def _installed() -> str:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", "mosquitto"],
    ):
        done = subprocess.run(
            ["apt-get", *step], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServiceError(f"apt-get {step[0]} failed: {done.stderr[-500:]}; {_INSTALL}")
    found = shutil.which("mosquitto", path=_PATH)
    if found is None:
        raise ServiceError(f"mosquitto was installed but is not found; {_INSTALL}")
    return found


def command(root: Path) -> tuple[str, list[str]]:
    """Prepare *root*; return the broker's address and its command."""
    program = install()
    settings = root / "mosquitto.conf"
    if not settings.exists():
        text = _SETTINGS.format(host=HOST, port=free_port(), root=root)
        if os.geteuid() == 0:
            # Started by root it would drop to the user mosquitto, who cannot write here.
            text += "user root\n"
        settings.write_text(text)
    port = settings.read_text().split()[1]
    return f"mqtt://{HOST}:{port}", [program, "-c", str(settings)]

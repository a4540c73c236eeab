"""InfluxDB 1.8 as one child process, loopback only; it speaks the v2 write and query API."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import httpx

from streams.errors import ServiceError
from streams.services.cache import installed
from streams.services.ports import HOST, free_port

VERSION = "1.8.10"
DATABASE = "headwater"
_SETTINGS = """reporting-disabled = true
bind-address = "{host}:{rpc}"
[meta]
dir = "{root}/meta"
[data]
dir = "{root}/data"
wal-dir = "{root}/wal"
index-version = "tsi1"
max-values-per-tag = 0
max-series-per-database = 0
query-log-enabled = false
[http]
bind-address = "{host}:{port}"
flux-enabled = true
log-enabled = false
max-body-size = 0
[monitor]
store-enabled = false
"""


def install() -> Path:
    """Return the folder with ``influxd``, building it where needed (about a minute).

    :raises ServiceError: if Go is missing or the build fails.
    """
    if shutil.which("go") is None:
        raise ServiceError(
            "InfluxDB is built from source and needs go: apt-get install golang-go "
            "(or name a running InfluxDB in HEADWATER_INFLUX)"
        )
    return installed("influxdb", VERSION, _build)


def command(root: Path) -> tuple[str, list[str]]:
    """Prepare *root*; return the server's address and its command."""
    program = install() / "influxd"
    settings = root / "influxdb.conf"
    if not settings.exists():
        settings.write_text(
            _SETTINGS.format(host=HOST, rpc=free_port(), port=free_port(), root=root)
        )
    bound = [line for line in settings.read_text().splitlines() if line.startswith("bind")][1]
    address = bound.partition('"')[2].rstrip('"')
    return f"http://{address}", [str(program), "-config", str(settings)]


def make_database(address: str) -> None:
    """Create the database that the default bucket names; an existing one is left alone."""
    question = {"q": f"CREATE DATABASE {DATABASE}"}
    answer = httpx.post(f"{address}/query", params=question, timeout=60.0)
    answer.raise_for_status()


def _build(folder: Path) -> None:
    env = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    package = f"github.com/influxdata/influxdb/cmd/influxd@v{VERSION}"
    done = subprocess.run(
        ["go", "install", package], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServiceError(f"go install {package} failed:\n{done.stderr[-2000:]}")

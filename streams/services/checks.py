"""What a machine needs to run Headwater, each item with how to get it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import psutil

from streams.errors import SettingsError
from streams.extensions import GROUPS, installed
from streams.services import influx, kafka
from streams.services.cache import cache_root, is_whole
from streams.services.ports import is_open
from streams.services.supervisor import named
from streams.settings import config_path, load

_GIB = 1 << 30
_JAVA = 17
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the report. ``fix`` is how to get what is missing."""

    what: str
    ok: bool
    found: str
    fix: str = ""


def examine() -> list[Item]:
    """Return all items, in the order in which a set-up meets them."""
    return [
        _python(),
        _settings(),
        _extensions(),
        _memory(),
        _disk(),
        *_kafka(),
        *_mqtt(),
        *_influx(),
    ]


def _python() -> Item:
    version = ".".join(map(str, sys.version_info[:3]))
    return Item("Python 3.11+", sys.version_info >= (3, 11), version, "apt-get install python3.11")


def _settings() -> Item:
    path = config_path()
    try:
        load()
    except SettingsError as error:
        return Item("settings", False, str(error), "headwater config check")
    return Item("settings", True, str(path) if path.exists() else "defaults (no headwater.toml)")


def _extensions() -> Item:
    """What other packages add."""
    found = [one for group in GROUPS for one in installed(group) if not one.is_ours]
    shown = ", ".join(
        f"{one.group.removeprefix('headwater.')}: {one.name} ({one.package} {one.version})"
        for one in found
    )
    return Item("extensions", True, shown or "only Headwater's own")


def _memory() -> Item:
    total = psutil.virtual_memory().total / _GIB
    cores = os.cpu_count() or 1
    return Item("memory 4 GiB+", total >= 4, f"{total:.0f} GiB, {cores} cores", "a larger machine")


def _disk() -> Item:
    root = cache_root()
    probe = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(probe).free / _GIB
    return Item(
        "disk 2 GiB free", free >= 2, f"{free:.0f} GiB at {probe}", f"free space at {probe}"
    )


def _kafka() -> list[Item]:
    address = named("kafka")
    if address:
        return [_reachable("Kafka", address, "HEADWATER_KAFKA")]
    if is_whole(cache_root() / f"kafka-{kafka.VERSION}"):
        return [_java(), Item("Kafka", True, f"{kafka.VERSION}, installed in the cache")]
    return [_java(), _program("mvn", "maven", "brings Kafka")]


def _mqtt() -> list[Item]:
    address = named("mqtt")
    if address:
        return [_reachable("MQTT broker", address, "HEADWATER_MQTT")]
    found = shutil.which("mosquitto", path=_PATH)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        return [Item("mosquitto", True, "will be installed by apt-get")]
    return [
        Item(
            "mosquitto",
            found is not None,
            found or "missing",
            "apt-get install mosquitto, or name a broker in HEADWATER_MQTT",
        )
    ]


def _influx() -> list[Item]:
    address = named("influx")
    if address:
        return [_reachable("InfluxDB", address, "HEADWATER_INFLUX")]
    if is_whole(cache_root() / f"influxdb-{influx.VERSION}"):
        return [Item("InfluxDB", True, f"{influx.VERSION}, installed in the cache")]
    return [_program("go", "golang-go", "builds InfluxDB")]


def _program(program: str, package: str, purpose: str) -> Item:
    found = shutil.which(program)
    return Item(
        f"{program} ({purpose})", bool(found), found or "missing", f"apt-get install {package}"
    )


def _java() -> Item:
    fix = "apt-get install openjdk-17-jre-headless, or name a Kafka in HEADWATER_KAFKA"
    if shutil.which("java") is None:
        return Item("java 17+", False, "missing", fix)
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    ok = version is not None and int(version.group(1)) >= _JAVA
    # Before it may stand a note of options from the environment.
    told = next((line for line in shown.splitlines() if "version" in line), "unknown")
    return Item("java 17+", ok, told, fix)


def _reachable(what: str, address: str, variable: str) -> Item:
    bare = address.rpartition("//")[2].partition(",")[0]
    ok = is_open(bare)
    state = "answers" if ok else "does not answer"
    return Item(what, ok, f"{address} {state}", f"start it, or unset {variable}")

"""Twins: their size, their speed, what a week offline costs; beside a plain document each.

The peers hold the same fields in a pycrdt Map and in a Loro map, one document for each device,
with none of what a twin does beyond that: no policies, no ledger, no kinds, no log on disk. They
say what the document itself costs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

import orjson

from benchmarks.crdt.plain_docs import FIELDS
from benchmarks.crdt.site import SITE, TENANT, Site
from benchmarks.report import Measure, at_least, at_most
from crdt.core.messages import Kind, Message, decode_batch, decode_message, encode_batch
from crdt.core.policies import Policies
from crdt.core.sync import Session
from crdt.log import Log
from crdt.replica import Reading, Replica
from crdt.torture.run import play
from edge.node import EdgeNode
from streams.errors import ServiceError
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import up_records
from streams.services.cache import installed
from streams.settings import Settings

LORO_VERSION = "1.17.1"
PARTS = ("week", "size", "speed", "agent", "torture")
OVERWRITES = 1_000_000
DEVICES = 10_000
CHANGED = 30
"""Devices that each side changed while the link was cut."""
_EDITS = 2_000
_LOGGED = 1_000
"""Overwrites that go to the log: it is begun anew every 200, at a compaction."""
_KIB = 1024
_READING = Reading(Policies((("reported.starts", "counter"),)))


def run(*, seconds: float, seed: int, only: Sequence[str] = ()) -> list[Measure]:
    """Measure, and return the figures.

    :param seconds: seeds of the torture are played for a sixth of it: a sample, which says what
        all would take. ``headwater torture --seeds 10000`` plays them.
    :param seed: the first of them.
    :param only: parts of ``PARTS``; default: all.
    """
    parts: dict[str, Callable[[], list[Measure]]] = {
        "week": lambda: a_week_offline(DEVICES, CHANGED),
        "size": lambda: after_overwrites(OVERWRITES),
        "speed": lambda: edits_and_merges(_EDITS),
        "agent": lambda: agent(DEVICES),
        "torture": lambda: torture(seed, seconds / 6),
    }
    found: list[Measure] = []
    for name in only or PARTS:
        found += parts[name]()
    return found + [m for n in ("pycrdt", "loro") for m in peer(n, OVERWRITES, DEVICES, CHANGED)]


def a_week_offline(devices: int, changed: int) -> list[Measure]:
    """Bring a site and the cloud together that both changed some of their devices."""
    names = [f"pump-{number:05}" for number in range(devices)]
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), names, Settings())
        for name in names:
            site.edge.edit(name, {"desired.mode": 1}, ())
        site.talk()
        site.edge.call()
        site.talk()
        assert site.edge.status()["in_sync"] == devices
        for number in range(changed):
            for field in range(3):
                site.edge.edit(names[number], {f"desired.field{field}": 1}, ())
                site.edit_in_cloud(names[-1 - number], {f"desired.field{field}": 2})
        site.fold()
        site.forget_sent()
        site.sent_bytes = 0
        began_s = time.process_time()
        site.edge.call()
        site.talk()
        took_s = time.process_time() - began_s
        assert site.edge.status()["in_sync"] == devices
        for number in range(changed):
            assert len((site.edge.view(names[-1 - number]) or {})["fields"]) == 4
        site.edge.close()
    return [
        at_most(f"a week offline, {devices:,} devices: process time", took_s, "s", 2),
        at_most("a week offline: on the wire", site.sent_bytes / _KIB, "KiB", 40),
    ]


def after_overwrites(times: int) -> list[Measure]:
    """Return the sizes of a twin with 20 fields that were overwritten for ever."""
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "twins.db")
        replica = Replica(f"edge:north:{log.mint()}", _READING)
        began_s = time.process_time()
        for number in range(times):
            replica.edit({f"desired.field{number % FIELDS}": number}, (), now_ms=number)
            if replica.wants_compaction():
                replica.compact(f"t{number}")
            if number > times - _LOGGED:
                made, replaced = replica.drain()
                log.append("pump-1", made, replica.stored, replace=replaced)
            elif number % 1_000 == 0:
                replica.drain()
        took_s = time.process_time() - began_s
        stored = sum(map(len, log.load()["pump-1"]))
        log.close()
    session = Session("cloud")
    hello = Message(Kind.HELLO, "cloud:0", 0, b"", "", 0, want=False, epoch=replica.epoch)
    (snapshot,) = session.receive(hello, replica)
    what = f"after {times:,} overwrites of {FIELDS} fields"
    return [
        at_most(f"{what}: stored", stored / _KIB, "KiB", 8),
        at_most(f"{what}: snapshot", sum(map(len, snapshot.updates)) / _KIB, "KiB", 4),
        Measure(f"{what}: epochs", replica.epoch.number, ""),
        Measure("an edit, in memory", round(took_s / times * 1e6, 1), "µs"),
    ]


def edits_and_merges(times: int) -> list[Measure]:
    """Return the time of a durable edit, and of taking in one change of another replica."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        node = EdgeNode(Log(Path(folder) / "twins.db"), "north", _READING, lambda: 1_000)
        took = []
        for number in range(times):
            began_s = time.perf_counter()
            node.edit("pump-1", {f"desired.field{number % FIELDS}": number}, ())
            took.append(time.perf_counter() - began_s)
        node.close()
    at = quantiles(took, n=100)
    found = [
        Measure("an edit, durable on disk: p50", round(at[49] * 1e3, 3), "ms"),
        at_most("an edit, durable on disk: p99", at[98] * 1e3, "ms", 5),
    ]
    edge, cloud = Replica("edge:north:1-x", _READING), Replica("cloud:0", _READING)
    up, down = Session("cloud"), Session("north")
    waiting = [(cloud, down, up.hello(edge, want=True))]
    while waiting:
        replica, session, said = waiting.pop()
        there = (edge, up) if replica is cloud else (cloud, down)
        waiting += [(*there, answer) for answer in session.receive(said, replica)]
    took = []
    for number in range(times):
        edge.edit({f"desired.field{number % FIELDS}": number}, (), now_ms=number)
        if edge.wants_compaction():
            edge.compact(f"t{number}")
        for message in up.pending(edge):
            data = message.encode()
            began_s = time.perf_counter()
            answers = down.receive(decode_message(data), cloud)
            took.append(time.perf_counter() - began_s)
            for answer in answers:
                up.receive(answer, edge)
    assert edge.digest() == cloud.digest()
    return [*found, at_most("merging one delta: p50", median(took) * 1e6, "µs", 200)]


def agent(devices: int) -> list[Measure]:
    """Return how many signed deltas are verified and folded a second, and an idle twin's size."""
    # All partitions of a worker are one here, so they keep what all of them would.
    partitions = Settings().topics.partitions
    settings = Settings(twins={"max_live": partitions * Settings().twins.max_live})
    names = [f"pump-{number:05}" for number in range(devices)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), names, settings)
        for name in names:
            site.edge.edit(name, {f"desired.field{n}": n for n in range(3)}, ())
        site.talk()
        site.edge.greet(all_devices=True)
        site.talk()
        signed, site.edge.seal = site.edge.seal, encode_batch
        for how, batch, least in (("in envelopes of 256", 256, 5_000), ("one by one", 1, 2_000)):
            parts = []
            for name in names:
                site.edge.edit(name, {"reported.rpm": 1_000 + batch}, ())
                parts += site.up
                site.up.clear()
            envelopes = [signed(some) for some in _rebatched(parts, batch)]
            began_s = time.process_time()
            for envelope in envelopes:
                delivery = Delivery(f"hw/v1/{TENANT}/{SITE}/twin/up", envelope, 1, 1, 0)
                for record in up_records(delivery, settings, site.openers):
                    site.cloud.append(record.value, at_ms=1, key=record.key, headers=record.headers)
                site.cloud.run()
            took_s = time.process_time() - began_s
            found.append(
                at_least(f"gateway and agent, signed deltas {how}", devices / took_s, "1/s", least)
            )
        site.cloud.checkpoint()
        sizes = [len(state) for _, state in site.cloud.stored.values()]
        site.edge.close()
    return [*found, at_most("an idle twin of 4 fields, stored", median(sizes) / _KIB, "KiB", 2)]


def torture(seed: int, seconds: float) -> list[Measure]:
    """Play seeds for some time."""
    began_s, played, broken = time.monotonic(), 0, 0
    while time.monotonic() - began_s < seconds:
        broken += bool(play(seed + played, 3 + (seed + played) % 3, 200).violation)
        played += 1
    took_s = time.monotonic() - began_s
    return [
        Measure("torture: seeds played", played, ""),
        at_most("torture: seeds broken", broken, "", 0),
        Measure("torture: 10,000 seeds would take", round(10_000 * took_s / played / 60, 1), "min"),
    ]


def peer(name: str, overwrites: int, devices: int, changed: int) -> list[Measure]:
    """Return what plain documents cost, measured by a process of their own."""
    python = sys.executable if name == "pycrdt" else _loro_python()
    script = str(Path(__file__).parent / "plain_docs.py")
    command = [python, script, name, str(overwrites), str(devices), str(changed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"{name}: {done.stderr[-500:]}")
    found = orjson.loads(done.stdout)
    return [
        Measure(f"plain {name}: process time of the week", round(found["resync_s"], 3), "s"),
        Measure(f"plain {name}: the week on the wire", round(found["resync_bytes"] / _KIB), "KiB"),
        Measure(f"plain {name}: whole document", round(found["whole_bytes"] / _KIB, 1), "KiB"),
        Measure(f"plain {name}: an edit, in memory", round(found["edit_us"], 1), "µs"),
        Measure(f"plain {name}: merging one delta: p50", round(found["merge_us"], 1), "µs"),
    ]


def _rebatched(envelopes: Sequence[bytes], size: int) -> list[list[tuple[str, bytes]]]:
    parts = [part for envelope in envelopes for part in decode_batch(envelope)]
    return [parts[i : i + size] for i in range(0, len(parts), size)]


def _loro_python() -> str:
    """Make an environment for Loro, which Headwater does not depend on."""

    def make(folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--copies", str(folder)], check=True, capture_output=True
        )
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, f"loro=={LORO_VERSION}"], check=True, capture_output=True)

    return str(installed("loro", LORO_VERSION, make) / "bin" / "python")

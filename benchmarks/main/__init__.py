"""From PUBLISH sent to webhook request received, at a steady rate, with shipped defaults.

Publisher and receiver are processes of their own, outside the system; both read one clock. Each
device is a series of Gaussian noise with one spike of 40 standard deviations in the measured
time: each spike is one alert. Only the mapping and the webhook are set; everything else
(windows, detector, rule, linger, checkpoints) is as shipped. The sink runs as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from rich.console import Console

from benchmarks.main.load import Plan, warm_up
from benchmarks.report import Measure, at_least, at_most
from streams.alerts.secrets import write_secret
from streams.demo.processes import Processes
from streams.services import supervisor
from streams.services.ports import free_port
from streams.settings import Settings

_HOPS = ("event_ms", "received_ms", "kafka_ms", "worker_ms", "queued_ms", "sent_ms")
_NAMES = ("gateway", "worker", "rollup", "sink", "alerts", "api", "edge")
_ALERTS_PER_S = 40.0
_PATIENCE_S = 60.0
_SETTINGS = """[[mappings]]
topic = "bench/{{device}}"

[[webhooks]]
name = "bench"
url = "http://127.0.0.1:{port}/"
secret_file = "{secret}"
allow_private = true

[edge]
data = "{edge}"
"""


def run(*, seconds: float, rate: float, seed: int) -> list[Measure]:
    """Measure, and return the figures."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        plan = Plan(rate, seconds, round(_ALERTS_PER_S * seconds), seed)
        processes, mqtt, listener = _start(stack, home)
        console.print(f"warming up {plan.devices:,} devices")
        warm_up(mqtt, plan)
        _wait_idle(processes)
        console.print(f"publishing {rate:,.0f} readings/s for {seconds:.0f} s")
        before = _cpu(processes)
        sent = _publish(mqtt, plan, home)
        used = {name: (cpu - before[name]) / seconds for name, cpu in _cpu(processes).items()}
        _wait_received(home / "received.jsonl", len(sent))
        listener.terminate()
        listener.wait()
        return _figures(plan, sent, _received(home / "received.jsonl"), used)


def _start(stack: ExitStack, home: Path) -> tuple[Processes, str, subprocess.Popen[bytes]]:
    addresses = supervisor.up(home / "servers")
    stack.callback(supervisor.down, home / "servers")
    port = free_port()
    write_secret(home / "secret")
    (home / "headwater.toml").write_text(
        _SETTINGS.format(port=port, secret=home / "secret", edge=home / "edge")
    )
    ports = {name: free_port() for name in _NAMES}
    env = {
        "HEADWATER_CONFIG": str(home / "headwater.toml"),
        "HEADWATER_STATE": str(home),
        "HEADWATER_LAKE": str(home / "lake"),
        **{f"HEADWATER_{name.upper()}": found for name, found in addresses.items()},
        **{f"HEADWATER_OPS__{name.upper()}_PORT": str(p) for name, p in ports.items()},
    }
    received = (home / "received.jsonl").open("wb")
    stack.callback(received.close)
    listener = subprocess.Popen(
        [
            *(sys.executable, "-m", "streams.cli.main", "webhooks", "listen", "--json"),
            *("--secret-file", str(home / "secret"), "--port", str(port)),
        ],
        stdout=received,
    )
    stack.callback(listener.kill)
    _make_topics(addresses["kafka"])
    processes = Processes(env, ports, home / "logs", {})
    stack.callback(processes.stop_all)
    processes.start_all()
    return processes, addresses["mqtt"], listener


def _make_topics(kafka: str) -> None:
    import asyncio

    from streams.adapters import topic_admin

    asyncio.run(topic_admin.apply(kafka, Settings().topics))


def _wait_idle(processes: Processes) -> None:
    """Wait until worker and sink have taken in the warm-up."""
    deadline = time.monotonic() + 3 * _PATIENCE_S
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        lag = processes.children["worker"].metric("headwater_host_lag_records")
        lag += processes.children["sink"].metric("headwater_sink_lag_records")
        quiet = quiet + 1 if lag < 500 else 0
        time.sleep(1.0)


def _publish(mqtt: str, plan: Plan, home: Path) -> dict[tuple[str, int], int]:
    """Publish in a process of its own; return (device, event time) -> send time in ns."""
    out = home / "sent.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.main.publish", mqtt, plan.to_json(), str(out)],
        check=True,
    )
    return {(device, t_ms): ns for device, t_ms, ns in orjson.loads(out.read_bytes())}


def _received(path: Path) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [line for line in lines if line["payload"]["data"]["state"] == "firing"]


def _wait_received(path: Path, wanted: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and len(_received(path)) < wanted:
        time.sleep(0.5)


def _cpu(processes: Processes) -> dict[str, float]:
    """Return CPU seconds used so far: of each process, and of the whole machine."""
    used = {}
    for name, child in processes.children.items():
        times = psutil.Process(child.process.pid).cpu_times()
        used[name] = times.user + times.system
    return used


def _figures(
    plan: Plan,
    sent: dict[tuple[str, int], int],
    received: list[dict[str, Any]],
    used: dict[str, float],
) -> list[Measure]:
    waited, hops, seen, strangers = [], [], set(), 0
    for line in received:
        data = line["payload"]["data"]
        key = (data["device"], data["hops"]["event_ms"])
        if key not in sent:
            strangers += 1
            continue
        if key in seen:
            continue
        seen.add(key)
        waited.append((line["received_ns"] - sent[key]) / 1e6)
        hops.append([*(data["hops"][h] for h in _HOPS), line["received_ns"] / 1e6])
    p50, p90, p99, p999 = np.percentile(waited, [50, 90, 99, 99.9])
    steps = np.diff(np.asarray(hops), axis=1)
    ids = [line["id"] for line in received]
    achieved = plan.achieved(sent)
    return [
        at_most("PUBLISH sent to webhook received, p99", float(p99), "ms", 1000.0),
        Measure("the same, p50", round(float(p50), 1), "ms"),
        Measure("the same, p90", round(float(p90), 1), "ms"),
        Measure("the same, p99.9", round(float(p999), 1), "ms"),
        Measure("the same, greatest", round(max(waited), 1), "ms"),
        at_least("alerts received", len(seen), "", min(2000, len(sent))),
        at_most("spikes without an alert", len(sent) - len(seen), "", 0),
        at_most("alerts received twice", len(ids) - len(set(ids)), "", 0),
        Measure("alerts on noise", strangers, ""),
        at_least("rate published", achieved, "readings/s", 0.98 * plan.rate),
        *(
            Measure(f"{a} to {b}, p50", round(float(np.percentile(steps[:, i], 50)), 1), "ms")
            for i, (a, b) in enumerate(zip(_HOPS, (*_HOPS[1:], "received"), strict=True))
        ),
        *(
            Measure(f"{a} to {b}, p99", round(float(np.percentile(steps[:, i], 99)), 1), "ms")
            for i, (a, b) in enumerate(zip(_HOPS, (*_HOPS[1:], "received"), strict=True))
        ),
        *(Measure(f"CPU of {name}", round(cores, 3), "cores") for name, cores in used.items()),
    ]

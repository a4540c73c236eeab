"""The demo itself: real servers, real processes, real series, and three things that go wrong."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from streams.adapters import topic_admin
from streams.audit import AuditReport, audit
from streams.demo.processes import Processes
from streams.demo.progress import Progress
from streams.demo.receiver import Receiver
from streams.demo.scene import (
    FLEET_HORIZON_MS,
    FLEET_METRIC,
    FLEET_SITE,
    MACHINES_SITE,
    PIDS_FILE,
    Scene,
    prepare,
)
from streams.demo.summary import Summary, checks, detection, latency
from streams.demo.twins import Ends, describe
from streams.demo.view import View, teller
from streams.errors import ServiceError
from streams.services import supervisor
from streams.services.ports import HOST
from streams.settings import Settings, load
from streams.sim.nab import labelled_windows
from streams.sim.proxy import Proxy
from streams.sim.publisher import Publisher, publish
from streams.sim.recorded import machines
from streams.sim.sensors import Fault, Fleet, Message

MESSAGES_PER_S = 1_100.0
FLEET_PER_S = 100.0
_FLEET = 20
_DEVICE = f"{FLEET_SITE}-00"
_KILL_AT = 0.45
_CUT_AT = 0.15
_SETTLE_S = 300.0
_SHARES = {
    Fault.SPIKE: 0.004,
    Fault.DUPLICATE: 0.01,
    Fault.OUT_OF_ORDER: 0.01,
    Fault.LATE: 0.004,
    Fault.WRONG_CLOCK: 0.002,
    Fault.MALFORMED: 0.003,
}


@dataclass(slots=True)
class Stage:
    """Everything that is up while the story runs."""

    scene: Scene
    settings: Settings
    processes: Processes
    receiver: Receiver
    proxy: Proxy
    progress: Progress


def run_demo(state: Path, console: Console, *, scale: float, seed: int, keep: bool) -> Summary:
    """Run the whole story; see ``headwater demo --help``.

    :param scale: share of the recorded series that is replayed.
    :raises ServiceError: if something cannot be started or does not settle in time.
    """
    started = time.monotonic()
    scene = prepare(state.absolute())
    progress = Progress(teller(console))
    with ExitStack() as stack:
        stage = _set_stage(stack, scene, progress, console, keep=keep)
        with View(console, progress, stage.processes, stage.receiver):
            recorded = machines(MACHINES_SITE, scale)
            dead_ns, twin = _play(stage, recorded, seed)
            report = _settle(stage)
        if keep:
            pids = " ".join(str(c.process.pid) for c in stage.processes.children.values())
            (scene.state / PIDS_FILE).write_text(pids)
        seconds = time.monotonic() - started
        return _summarise(stage, report, dead_ns, twin, recorded, seconds=seconds)


def _set_stage(
    stack: ExitStack, scene: Scene, progress: Progress, console: Console, *, keep: bool
) -> Stage:
    os.environ["HEADWATER_CONFIG"] = str(scene.config)
    if not keep:
        stack.callback(supervisor.down, scene.state)
    addresses = supervisor.up(
        scene.state, report=lambda name, what: progress.say(f"[bold]{name}[/] {what}")
    )
    named = {f"HEADWATER_{name.upper()}": address for name, address in addresses.items()}
    os.environ.update(scene.env() | named)
    settings = load()
    asyncio.run(topic_admin.apply(settings.kafka, settings.topics))
    receiver = stack.enter_context(Receiver(scene.secret.read_text().strip(), scene.receiver_port))
    broker = urlsplit(settings.mqtt)
    proxy = stack.enter_context(Proxy(broker.hostname or HOST, broker.port or 1883))
    special = {"edge": {"HEADWATER_MQTT": f"mqtt://{HOST}:{proxy.port}"}}
    processes = Processes({}, scene.ports, scene.state / "logs", special)
    if not keep:
        stack.callback(processes.stop_all)
    progress.say("starting gateway, worker, sink, alerts, api and edge")
    processes.start_all()
    progress.say("all processes are ready")
    return Stage(scene, settings, processes, receiver, proxy, progress)


def _play(
    stage: Stage, recorded: list[Message], seed: int
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Replay and simulate, and meanwhile cut a link and kill the worker."""
    # The fleet goes on for as long as the recorded series take.
    fleet = _fleet_messages(seed, round(len(recorded) / MESSAGES_PER_S * FLEET_PER_S))
    stage.progress.total = len(recorded) + len(fleet)
    stage.progress.say(
        f"replaying {len(recorded):,} real readings of 7 machines, and {_FLEET} simulated devices "
        "with known faults"
    )
    failures: list[BaseException] = []
    threads = [
        _publishing(stage, "machines", recorded, MESSAGES_PER_S, failures),
        _publishing(stage, "fleet", fleet, FLEET_PER_S, failures),
    ]
    twin = _twin_story(stage, threads)
    _wait_share(stage, threads, _KILL_AT)
    dead_ns = _kill_worker(stage)
    for thread in threads:
        thread.join()
    if failures:
        raise ServiceError(f"publishing failed: {failures[0]}") from failures[0]
    stage.progress.say("all is sent; waiting until everything has its place")
    return dead_ns, twin


def _fleet_messages(seed: int, count: int) -> list[Message]:
    fleet = Fleet(
        FLEET_SITE,
        _FLEET,
        FLEET_METRIC,
        round(1000 * _FLEET / FLEET_PER_S),
        seed,
        _SHARES,
        late_ms=20 * FLEET_HORIZON_MS,
        quiet=round(80 * min(1.0, count / 6_000)),
    )
    return list(_whole_pairs(islice(fleet.messages(time.time_ns() // 1_000_000), count)))


def _whole_pairs(messages: Iterator[Message]) -> Iterator[Message]:
    """Drop a first copy at the very end whose second was cut off."""
    waiting: Message | None = None
    for message in messages:
        if message.fault is Fault.DUPLICATE and waiting is None:
            waiting = message
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        yield message


def _publishing(
    stage: Stage,
    name: str,
    messages: list[Message],
    per_s: float,
    failures: list[BaseException],
) -> threading.Thread:
    publisher = Publisher(stage.settings.mqtt, f"demo-{name}")

    def go() -> None:
        try:
            publish(publisher, messages, per_s=per_s, on_sent=stage.progress.note)
            publisher.close()
        except ServiceError as error:
            failures.append(error)

    thread = threading.Thread(target=go, name=f"publish {name}", daemon=True)
    thread.start()
    return thread


def _wait_share(stage: Stage, threads: list[threading.Thread], share: float) -> None:
    while stage.progress.share() < share and any(thread.is_alive() for thread in threads):
        time.sleep(0.05)


def _kill_worker(stage: Stage) -> tuple[int, int]:
    """Kill the worker and start it again; return when it was dead."""
    begin_ns = time.time_ns()
    stage.processes.kill("worker")
    stage.progress.say("[red]kill -9[/] to the worker, in the middle of everything")
    stage.processes.start("worker")
    stage.processes.wait_ready("worker")
    end_ns = time.time_ns()
    stage.progress.say(f"the worker is back after {(end_ns - begin_ns) / 1e9:.1f} s")
    return begin_ns, end_ns


def _twin_story(stage: Stage, threads: list[threading.Thread]) -> dict[str, Any]:
    """Change a twin on both sides of a cut link, heal, and wait until it is one again."""
    ports, say = stage.scene.ports, stage.progress.say
    path = f"/v1/devices/{_DEVICE}/twin"
    ends = Ends(f"http://{HOST}:{ports['edge']}{path}", f"http://{HOST}:{ports['api']}{path}")
    ends.write(ends.edge, {"reported.firmware": "2.1.0", "desired.limits.vibration": 70})
    ends.wait_equal("before the cut")
    _wait_share(stage, threads, _CUT_AT)
    stage.proxy.cut()
    say(f"the link of site {FLEET_SITE} is [red]cut[/]; both sides change the twin of {_DEVICE}")
    ends.write(ends.edge, {"desired.limits.vibration": 65, "reported.mode": "manual"})
    ends.write(ends.cloud, {"desired.limits.vibration": 90, "desired.interval_s": 5})
    _wait_share(stage, threads, _CUT_AT + 0.15)
    stage.proxy.heal()
    took_s = ends.wait_equal("after the cut")
    say(f"the link is [green]back[/]; the twin was the same on both sides after {took_s:.1f} s")
    return describe(_DEVICE, ends.read(ends.edge), ends.read(ends.cloud))


def _settle(stage: Stage) -> AuditReport:
    """Wait until no process lags and no window is open, and count."""
    deadline = time.monotonic() + _SETTLE_S
    children = stage.processes.children
    while True:
        lag = children["worker"].metric("headwater_host_lag_records")
        lag += children["alerts"].metric("headwater_host_lag_records")
        lag += children["sink"].metric("headwater_sink_lag_records")
        lag += children["alerts"].metric("headwater_alerts_outbox_messages")
        late = time.monotonic() > deadline
        if lag == 0 or late:
            report = asyncio.run(audit(stage.settings))
            if late or (report.holds and report.in_open_windows == 0):
                return report
        time.sleep(1.0)


def _summarise(
    stage: Stage,
    report: AuditReport,
    dead_ns: tuple[int, int],
    twin: dict[str, Any],
    recorded: list[Message],
    *,
    seconds: float,
) -> Summary:
    deliveries = list(stage.receiver.deliveries)
    sent = Counter(stage.progress.sent)
    return Summary(
        sent={fault.value: count for fault, count in sent.items()},
        audit=report,
        checks=checks(sent, report, twin),
        detection=detection(deliveries, _labels_within(recorded), stage.progress.spikes),
        latency=latency(deliveries, dead_ns),
        alerts=dict(Counter(d.data["state"] for d in deliveries)),
        twin=twin,
        worker_back_s=round((dead_ns[1] - dead_ns[0]) / 1e9, 1),
        seconds=round(seconds, 1),
    )


def _labels_within(recorded: list[Message]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Return the labelled windows that the replayed part of each series has reached."""
    reached: dict[str, int] = {}
    for message in recorded:
        reached[message.device] = max(message.t_ms, reached.get(message.device, 0))
    return {
        (device, metric): [window for window in windows if window[0] <= reached.get(device, 0)]
        for (device, metric), windows in labelled_windows().items()
    }

"""The load: a fleet of noisy series, each with one spike."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import orjson

from streams.sim.publisher import Publisher

_WARM = 100
_TICK_S = 0.005
_LEVEL = 20.0
_NOISE = 0.5
_SPIKE = 40.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``devices`` take turns; each sends one spike in ``seconds``."""

    rate: float
    seconds: float
    devices: int
    seed: int

    def to_json(self) -> str:
        """Return the plan for the command line."""
        return orjson.dumps(asdict(self)).decode()

    def achieved(self, sent: dict[tuple[str, int], int]) -> float:
        """Return the rate that was reached, from the send times of the spikes."""
        times = sorted(sent.values())
        turns = self.rate * self.seconds / self.devices
        return (len(times) - 1) * turns / ((times[-1] - times[0]) / 1e9)


def warm_up(mqtt: str, plan: Plan) -> None:
    """Send each device's first readings as fast as they are taken."""
    rng = np.random.default_rng(plan.seed)
    publisher = Publisher(mqtt, "bench-warm-up")
    start_ms = time.time_ns() // 1_000_000 - 600_000
    for turn in range(_WARM):
        for device, value in enumerate(rng.normal(_LEVEL, _NOISE, plan.devices).tolist()):
            publisher.send(f"bench/d{device}", payload(start_ms + turn * 100, turn, value))
    publisher.close()


def payload(t_ms: int, seq: int, value: float) -> bytes:
    """Return one message."""
    return b'{"t_ms":%d,"boot":1,"seq":%d,"temperature":%.4f}' % (t_ms, seq, value)


def publish(mqtt: str, plan: Plan) -> list[tuple[str, int, int]]:
    """Publish evenly; return (device, event time, send time in ns) of each spike."""
    rng = np.random.default_rng(plan.seed + 1)
    publisher = Publisher(mqtt, "bench")
    total = round(plan.rate * plan.seconds)
    noise = rng.normal(_LEVEL, _NOISE, total).tolist()
    # Each device spikes once; which ones do in a turn is drawn, so that spikes do not bunch.
    turns = max(1, total // plan.devices)
    drawn = rng.permutation(plan.devices).tolist()
    due = {(i * turns // plan.devices) * plan.devices + device for i, device in enumerate(drawn)}
    sent = []
    started = time.perf_counter()
    number = 0
    while number < total:
        until = min(total, int((time.perf_counter() - started) * plan.rate) + 1)
        while number < until:
            device = number % plan.devices
            value = noise[number]
            now_ns = time.time_ns()
            t_ms = now_ns // 1_000_000
            if number in due:
                value += _SPIKE * _NOISE
                sent.append((f"d{device}", t_ms, now_ns))
            publisher.send(f"bench/d{device}", payload(t_ms, _WARM + number // plan.devices, value))
            number += 1
        time.sleep(_TICK_S)
    publisher.close()
    return sent

"""Virtual sensors: pure generators of readings and of labelled faults, by seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import orjson

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS


class Fault(StrEnum):
    """What can be wrong with a message, or with what it measures."""

    NONE = "none"
    SPIKE = "spike"
    DUPLICATE = "duplicate"
    """The message is sent twice."""
    OUT_OF_ORDER = "out-of-order"
    """Sent after its successor: accepted, perhaps as a correction."""
    LATE = "late"
    """Older than every correction horizon."""
    WRONG_CLOCK = "wrong-clock"
    """Its time is a year ahead."""
    MALFORMED = "malformed"
    """No reading can be made of it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message, and what is known to be wrong with it."""

    topic: str
    payload: bytes
    device: str
    t_ms: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Fleet:
    """A number of alike devices at one site.

    ``shares`` is how often each fault strikes, as a share of messages; ``late_ms`` how old a
    late reading is. The first ``quiet`` messages of a device are without faults, so that a
    detector can warm up.
    """

    site: str
    devices: int
    metric: str
    interval_ms: int
    seed: int
    shares: dict[Fault, float]
    late_ms: int
    quiet: int = 80
    topic: str = "demo/{site}/{device}"

    def messages(self, start_ms: int) -> Iterator[Message]:
        """Yield messages in the order of sending, for ever."""
        rng = random.Random(self.seed)
        names = [f"{self.site}-{i:02d}" for i in range(self.devices)]
        level = {name: rng.uniform(20.0, 80.0) for name in names}
        held: dict[str, Message] = {}
        seq = 0
        while True:
            for i, name in enumerate(names):
                t_ms = start_ms + seq * self.interval_ms + i * self.interval_ms // self.devices
                fault = self._draw(rng) if seq >= self.quiet else Fault.NONE
                message = self._message(rng, (name, level[name]), t_ms, seq, fault)
                waiting = held.pop(name, None)
                if fault is Fault.OUT_OF_ORDER:
                    held[name] = message
                else:
                    yield message
                if fault is Fault.DUPLICATE:
                    yield message
                if waiting is not None:
                    yield waiting
            seq += 1

    def _draw(self, rng: random.Random) -> Fault:
        drawn = rng.random()
        for fault, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return fault
        return Fault.NONE

    def _message(
        self, rng: random.Random, of: tuple[str, float], t_ms: int, seq: int, fault: Fault
    ) -> Message:
        name, level = of
        season = 2.0 * math.sin(2 * math.pi * (t_ms % DAY_MS) / DAY_MS)
        value = level + season + rng.gauss(0.0, 0.5)
        match fault:
            case Fault.SPIKE:
                value += rng.choice([-1, 1]) * rng.uniform(15.0, 30.0)
            case Fault.LATE:
                t_ms -= self.late_ms
            case Fault.WRONG_CLOCK:
                t_ms += YEAR_MS
            case _:
                pass
        content = {"t_ms": t_ms, "boot": 1, "seq": seq, self.metric: round(value, 4)}
        payload = orjson.dumps(content)
        if fault is Fault.MALFORMED:
            payload = rng.choice(_MANGLED)(payload, seq)
        topic = self.topic.format(site=self.site, device=name)
        return Message(topic, payload, name, t_ms, fault)


_MANGLED = (
    lambda payload, _: payload[: len(payload) // 2],
    lambda payload, _: payload[:-1] + b',"x":NaN}',
    lambda payload, _: payload[:-1] + b',"x":"hot"}',
    lambda payload, seq: payload[:-1] + b',"x":%d}' % (10**30 + seq),
)

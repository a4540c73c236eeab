"""What a detector found, as a person would say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import exp, isfinite


@dataclass(frozen=True, slots=True)
class Finding:
    """One reading and what was known of its series: times in milliseconds, ``noise`` and
    ``loudness`` logarithms of the newest over the usual, the rest in the series' ``unit``,
    which may be empty."""

    t_ms: int
    value: float
    expected: float
    run: int
    waited_ms: float
    interval_ms: float
    low: float
    high: float
    noise: float
    loudness: float
    unit: str = ""


def sentence(channels: Sequence[tuple[str, int]], found: Finding) -> str:
    """Return what the *channels* (name, and since when in ms, 0 for now) say of a reading."""
    return "; ".join(_WORDS[name](found, since_ms) for name, since_ms in channels)


def _level(found: Finding, _since_ms: int) -> str:
    return f"{_difference(found)} the usual {_amount(found, found.expected)}"


def _season(found: Finding, _since_ms: int) -> str:
    at = _time(found.t_ms, "%A %H:00")
    return f"{_difference(found)} the usual {_amount(found, found.expected)} for {at} UTC"


def _spike(found: Finding, _since_ms: int) -> str:
    return f"{_amount(found, found.value)} is far from the readings just before"


def _shift(found: Finding, since_ms: int) -> str:
    way = "up" if found.value >= found.expected else "down"
    return f"level shift {way}{_since(found, since_ms)}"


def _variance(found: Finding, since_ms: int) -> str:
    ratio = exp(min(abs(found.noise), 700.0))
    way = "louder" if found.noise > 0 else "quieter"
    return f"noise {ratio:.1f} times {way} than usual{_since(found, since_ms)}"


def _loudness(found: Finding, since_ms: int) -> str:
    ratio = exp(min(found.loudness, 700.0))
    return f"steps between readings {ratio:.1f} times larger than usual{_since(found, since_ms)}"


def _stuck(found: Finding, _since_ms: int) -> str:
    return f"exactly {_amount(found, found.value)} for {found.run + 1} readings"


def _gap(found: Finding, _since_ms: int) -> str:
    return f"silent for {_duration(found.waited_ms)}, usually {_duration(found.interval_ms)}"


def _drift(found: Finding, since_ms: int) -> str:
    return f"drifting away from the usual {_amount(found, found.expected)}{_since(found, since_ms)}"


def _creep(found: Finding, since_ms: int) -> str:
    return f"further from its level of the last days than it wanders{_since(found, since_ms)}"


def _range(found: Finding, _since_ms: int) -> str:
    return f"outside of all before, {_number(found.low)} to {_amount(found, found.high)}"


_WORDS: dict[str, Callable[[Finding, int], str]] = {
    "level": _level,
    "season": _season,
    "spike": _spike,
    "shift": _shift,
    "variance": _variance,
    "loudness": _loudness,
    "stuck": _stuck,
    "gap": _gap,
    "drift": _drift,
    "creep": _creep,
    "range": _range,
}


def _difference(found: Finding) -> str:
    gap = found.value - found.expected
    return f"{_amount(found, abs(gap))} {'above' if gap >= 0 else 'below'}"


def _amount(found: Finding, value: float) -> str:
    return f"{_number(value)} {found.unit}".rstrip()


def _number(value: float) -> str:
    return f"{value:.4g}"


def _since(found: Finding, since_ms: int) -> str:
    if not since_ms or since_ms == found.t_ms:
        return ""
    same_day = since_ms // 86_400_000 == found.t_ms // 86_400_000
    return f" since {_time(since_ms, '%H:%M' if same_day else '%Y-%m-%d %H:%M')}"


def _time(t_ms: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(t_ms / 1000, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{t_ms} ms"


def _duration(ms: float) -> str:
    if not isfinite(ms):
        return "for ever"
    for unit, size in (("d", 86_400_000.0), ("h", 3_600_000.0), ("min", 60_000.0)):
        if ms >= 2 * size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / 1000:.3g} s"

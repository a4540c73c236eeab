"""The labelled series that come with the project, and any CSV of ``timestamp,value``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from streams.errors import HeadwaterError

FOLDER = Path(__file__).parents[2] / "data" / "nab"

MACHINES = {
    "machine_temperature_system_failure.csv": ("press-7", "temperature"),
    "ambient_temperature_system_failure.csv": ("hall-2", "ambient"),
    "cpu_utilization_asg_misconfiguration.csv": ("server-4", "cpu"),
    "ec2_request_latency_system_failure.csv": ("server-9", "latency"),
    "nyc_taxi.csv": ("fleet-1", "passengers"),
    "rogue_agent_key_hold.csv": ("desk-3", "key_hold"),
    "rogue_agent_key_updown.csv": ("desk-5", "key_updown"),
}
"""File -> the device and metric under which it is replayed."""


@dataclass(frozen=True, slots=True)
class Point:
    """One reading of a recorded series; ``t_ms`` in milliseconds since the epoch, UTC."""

    t_ms: int
    value: float


def read_csv(path: Path) -> list[Point]:
    """Read ``timestamp,value`` rows; timestamps are ISO 8601, UTC unless they say otherwise.

    :raises HeadwaterError: naming the line that is not as expected.
    """
    points: list[Point] = []
    try:
        with path.open(newline="") as file:
            points.extend(
                Point(to_ms(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)
            )
    except OSError as error:
        raise HeadwaterError(f"{path}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise HeadwaterError(
            f"{path}:{len(points) + 2}: {error}; expected a header timestamp,value and rows "
            "like 2014-01-01 00:05:00,21.5"
        ) from error
    return points


def to_ms(text: str) -> int:
    """Return an ISO 8601 time as milliseconds since the epoch."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)


def labelled_windows() -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Return (device, metric) -> [begin_ms, end_ms] of each labelled anomaly."""
    labels = orjson.loads((FOLDER / "windows.json").read_bytes())
    return {
        MACHINES[name]: [(to_ms(begin), to_ms(end)) for begin, end in windows]
        for name, windows in labels.items()
    }

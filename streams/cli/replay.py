"""``headwater replay``: a recorded series, over MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(replay)


def replay(
    file: Annotated[Path, typer.Argument(help="CSV with a header timestamp,value")],
    device: Annotated[str, typer.Option(help="Replay as this device")] = "replay-1",
    metric: Annotated[str, typer.Option(help="Replay as this metric")] = "value",
    site: Annotated[str, typer.Option(help="Name of the site")] = "plant-a",
    speed: Annotated[str, typer.Option(help="Times real time, or max")] = "max",
    shift_to_now: Annotated[
        bool, typer.Option(help="Move the times so that the end is now")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the count as JSON")] = False,
) -> None:
    """Publish a recorded series to demo/SITE/DEVICE with the times of the file.

    Example: headwater replay data/nab/nyc_taxi.csv --device fleet-1 --metric passengers
    """
    import time

    import orjson
    from rich.console import Console
    from rich.progress import track

    from streams.errors import HeadwaterError
    from streams.settings import load
    from streams.sim.nab import read_csv
    from streams.sim.publisher import Publisher
    from streams.sim.recorded import messages_of

    points = read_csv(file)
    if not points:
        raise HeadwaterError(f"{file} has no rows")
    if speed != "max" and not speed.replace(".", "", 1).isdigit():
        raise HeadwaterError(f"--speed {speed}: expected a number (times real time) or max")
    shift_ms = time.time_ns() // 1_000_000 - points[-1].t_ms if shift_to_now else 0
    publisher = Publisher(load().mqtt, f"replay-{site}-{device}-{metric}")
    started = time.monotonic()
    console = Console(stderr=True)
    stream = messages_of(points, site, device, metric, shift_ms=shift_ms, boot=time.time_ns())
    for point, message in zip(
        points, track(stream, total=len(points), description=file.name, console=console),
        strict=True,
    ):  # fmt: skip
        if speed != "max":
            due_s = (point.t_ms - points[0].t_ms) / 1000 / float(speed)
            time.sleep(max(0.0, due_s - (time.monotonic() - started)))
        publisher.send(message.topic, message.payload)
    publisher.close()
    if json:
        print(orjson.dumps({"sent": publisher.confirmed}).decode())
    else:
        console.print(f"{publisher.confirmed:,} readings confirmed by the broker")

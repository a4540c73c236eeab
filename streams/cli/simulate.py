"""``headwater simulate``: virtual sensors with known faults, over MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(simulate)


def simulate(
    devices: Annotated[int, typer.Option(min=1, help="How many devices")] = 10,
    rate: Annotated[float, typer.Option(min=0.1, help="Readings per second, all together")] = 20,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds")] = 60,
    site: Annotated[str, typer.Option(help="Name of the site")] = "plant-a",
    metric: Annotated[str, typer.Option(help="Name of the metric")] = "vibration",
    seed: Annotated[int, typer.Option(help="The same seed gives the same readings")] = 1,
    faults: Annotated[float, typer.Option(min=0, max=0.1, help="Share of each fault")] = 0.002,
    labels: Annotated[Path | None, typer.Option(help="Write the injected faults here")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON")] = False,
) -> None:
    """Publish a fleet of virtual sensors to demo/SITE/DEVICE, with labelled faults.

    Example: headwater simulate --devices 50 --rate 200 --duration 30 --labels faults.json
    """
    import time
    from collections import Counter
    from itertools import islice

    import orjson
    from rich.console import Console
    from rich.progress import track

    from streams.settings import load
    from streams.sim.publisher import Publisher, publish
    from streams.sim.sensors import Fault, Fleet, Message

    fleet = Fleet(
        site, devices, metric, round(1000 * devices / rate), seed,
        {fault: faults for fault in Fault if fault is not Fault.NONE}, late_ms=86_400_000,
    )  # fmt: skip
    sent: Counter[str] = Counter()
    strange: list[dict[str, object]] = []

    def note(message: Message) -> None:
        sent[message.fault] += 1
        if message.fault is not Fault.NONE:
            strange.append({"device": message.device, "t_ms": message.t_ms, "fault": message.fault})

    publisher = Publisher(load().mqtt, f"simulate-{site}-{seed}")
    total = round(rate * duration)
    stream = islice(fleet.messages(time.time_ns() // 1_000_000), total)
    console = Console(stderr=True)
    shown = track(stream, total=total, description=f"{site}: {devices} devices", console=console)
    publish(publisher, shown, per_s=rate, on_sent=note)
    publisher.close()
    if labels is not None:
        labels.write_bytes(orjson.dumps(strange))
    if json:
        print(orjson.dumps(dict(sent)).decode())
    else:
        console.print(", ".join(f"{count:,} {fault}" for fault, count in sent.items()))

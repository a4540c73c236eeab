"""``headwater replay``: recordings, over MQTT, at any speed."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(replay)


def replay(
    source: Annotated[str, typer.Argument(help="A CSV or Parquet file, or the word: lake")],
    device: Annotated[
        str | None, typer.Option(help="Device of a file's rows (replay-1); of the lake: only it")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Name of a single value column; of the lake: only it")
    ] = None,
    site: Annotated[str, typer.Option(help="Site of a file's rows")] = "plant-a",
    topic: Annotated[
        str, typer.Option(help="MQTT topic, of {site} and {device}")
    ] = "demo/{site}/{device}",
    time_column: Annotated[
        str | None, typer.Option(help="Column of the time; else timestamp, t_ms, time, ts, ...")
    ] = None,
    time_unit: Annotated[str, typer.Option(help="Unit of numeric times: s, ms, us, ns")] = "ms",
    values: Annotated[
        str | None, typer.Option(help="Columns of values; else value, or all numbers")
    ] = None,
    device_column: Annotated[str | None, typer.Option(help="Column that names the device")] = None,
    metric_column: Annotated[
        str | None, typer.Option(help="Column that names the metric: one reading a row")
    ] = None,
    site_column: Annotated[str | None, typer.Option(help="Column that names the site")] = None,
    since: Annotated[str | None, typer.Option(help="Of the lake: event times from here")] = None,
    until: Annotated[str | None, typer.Option(help="Of the lake: event times before")] = None,
    speed: Annotated[
        str, typer.Option(help="1 is real time, 10 ten times as fast; or max")
    ] = "max",
    shift_to_now: Annotated[
        bool, typer.Option(help="Move the times so that the end is now")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the count as JSON")] = False,
) -> None:
    """Publish a recording, with the times it holds, as new messages.

    A file's rows go in the order of the file; the lake's readings as they came, with their gaps
    and repetitions. Send them to another system, or under names of their own: in the same
    system they count once more.

    Example: headwater replay data/nab/nyc_taxi.csv --device fleet-1 --metric passengers

    Example: headwater replay plant.parquet --device-column machine --values temp,load --speed 10

    Example: headwater replay lake --device pump-1 --since 2h --speed 1
    """
    import time

    import orjson
    from rich.console import Console
    from rich.markup import escape

    from streams.errors import DecodeError, HeadwaterError
    from streams.intake.mapping import TopicMap
    from streams.recovery.held import parse_time
    from streams.settings import load
    from streams.sim.pace import Pace, replayed
    from streams.sim.publisher import Publisher
    from streams.sim.recordings import LAKE, Columns, Target, open_recording

    settings, now_ms = load(), time.time_ns() // 1_000_000
    pace = Pace.of(speed)
    if time_unit not in ("s", "ms", "us", "ns"):
        raise HeadwaterError(f"--time-unit {time_unit}: expected s, ms, us or ns")
    columns = Columns(
        time_column,
        time_unit,  # type: ignore[arg-type] # checked above
        tuple(values.split(",")) if values else (),
        device_column,
        metric_column,
        site_column,
    )
    where: dict[str, Any] = {} if source != LAKE else {
        "device": device,
        "metric": metric,
        "since_ms": None if since is None else parse_time(since, now_ms),
        "until_ms": None if until is None else parse_time(until, now_ms),
    }  # fmt: skip
    recording = open_recording(source, columns, settings.lake.absolute(), **where)
    total = recording.count()
    if not total:
        raise HeadwaterError(f"{source} has no rows")
    target = Target(
        topic, site, device or "replay-1", metric or "value",
        now_ms - recording.last_ms() if shift_to_now else 0, time.time_ns(),
    )  # fmt: skip
    publisher = Publisher(settings.mqtt, f"replay-{target.boot}")
    console = Console(stderr=True)
    example = topic.format(site=site, device=target.device)
    try:
        TopicMap(settings.mappings).source(example)
    except DecodeError as error:
        # It may be meant for others.
        said = f"a gateway with these settings does not take it: {error.detail}"
        console.print(escape(said), style="yellow", highlight=False, soft_wrap=True)
    for message in replayed(recording.messages(target), pace, total, source, console):
        publisher.send(message.topic, message.payload)
    publisher.close()
    if json:
        print(orjson.dumps({"sent": publisher.confirmed}).decode())
    else:
        console.print(f"{publisher.confirmed:,} messages confirmed by the broker")

"""``headwater edge``: readings and twins of a site, online or not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

edge = typer.Typer(help="Run the edge node of a site, and look at it.")

At = Annotated[str | None, typer.Option(help="Ask this edge; default: the one of the settings")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(edge, name="edge")


@edge.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    """Take a site's readings, keep them durably, bring them up; keep its twins.

    Example: HEADWATER_EDGE__SITE=north headwater edge
    """
    if context.invoked_subcommand is not None:
        return
    from crdt.core.errors import TwinError
    from crdt.sqlite_file import LogError
    from edge.process import main
    from streams.errors import HeadwaterError
    from streams.log import configure
    from streams.settings import load

    settings = load()
    configure(settings.log, "edge")
    try:
        main(settings)
    except (LogError, TwinError) as error:
        raise HeadwaterError(str(error)) from error


@edge.command()
def status(
    at: At = None,
    *,
    follow: Annotated[bool, typer.Option(help="Show it live, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
) -> None:
    """Show lanes, rates, lag, disk, link, ring and filters, local work, and what was given up.

    Examples: headwater edge status, headwater edge status --follow,
    headwater edge status --at http://127.0.0.1:8106 --json
    """
    import time
    from contextlib import suppress

    import orjson
    from rich.live import Live

    from streams.edge_view import page
    from streams.settings import load
    from streams.terminal import console

    ops = load().ops
    address = at or f"http://{ops.host}:{ops.edge_port}"
    found = _ask(address)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    out = console()
    if not follow:
        out.print(page(found, None, 0))
        return
    with suppress(KeyboardInterrupt), Live(page(found, None, 0), console=out) as live:
        before_s = time.monotonic()
        while True:
            time.sleep(1)
            before, found, now_s = found, _ask(address), time.monotonic()
            live.update(page(found, before, now_s - before_s))
            before_s = now_s


@edge.command()
def backfill(  # every option is one of its own
    site: Annotated[str, typer.Argument(help="The site whose edge is asked")],
    since: Annotated[
        str, typer.Option("--from", help="Event times from here: 2026-01-31T12:00, ms, or 2h")
    ],
    until: Annotated[str, typer.Option("--to", help="Event times before this; default now")] = "0s",
    device: Annotated[list[str] | None, typer.Option(help="Globs of devices; all")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Globs of metrics; all")] = None,
    tenant: Annotated[str, typer.Option(help="Whose site it is")] = "default",
    wait_s: Annotated[float, typer.Option(help="How long to wait for a sign of the edge")] = 30.0,
    keep_h: Annotated[int, typer.Option(help="How long the request waits for an edge")] = 24,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a bar")] = False,
) -> None:
    """Bring up raw readings that filters of an edge left out: into the lake's table backfill.

    No window counts them. An edge that is away is asked when it comes back.

    Example: headwater edge backfill north --from 2h

    Example: headwater edge backfill north --from 2h --to 1h --device press-3 --metric load
    """
    import asyncio
    import secrets

    import orjson
    from rich.progress import Progress as Bar

    from streams.backfill import ask
    from streams.errors import HeadwaterError
    from streams.intake.backfill_wire import Progress, Request, State
    from streams.log import configure
    from streams.recovery.held import parse_time
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    at_ms = now_ms()
    begin, end = parse_time(since, at_ms), parse_time(until, at_ms)
    if begin >= end:
        raise HeadwaterError(f"--from {since} is not before --to {until}")
    devices, metrics = tuple(device or ["*"]), tuple(metric or ["*"])
    request = Request(secrets.token_hex(8), begin, end, devices, metrics)
    settings, out = load(), console()
    # What matters of the link comes back as an error.
    configure(settings.log.model_copy(update={"level": "error"}), "backfill")
    with Bar(console=out, disable=as_json, transient=True) as bar:
        task = bar.add_task(f"{tenant}/{site}", total=None)

        def show(found: Progress) -> None:
            text = f"{tenant}/{site}: {found.readings:,} readings"
            bar.update(
                task, description=text, total=found.of_segments or 1, completed=found.segments
            )

        asked = ask(
            *(settings, tenant, site, request),
            on_progress=show,
            silence_s=wait_s,
            expiry_s=keep_h * 3_600,
        )
        found = asyncio.run(asked)
    if as_json:
        told = {"id": request.id, "state": "waiting", "readings": 0, "detail": ""}
        if found is not None:
            told |= {"state": found.state, "readings": found.readings, "detail": found.detail}
        print(orjson.dumps(told).decode())
    elif found is None:
        out.print(f"no sign of {tenant}/{site} yet: the broker keeps the request for {keep_h} h")
    elif found.state is State.READING:
        out.print(f"{found.readings:,} readings so far; the edge goes on")
    elif found.state is State.DONE:
        out.print(f"{found.readings:,} readings are in Kafka. {found.detail}".strip())
    if found is not None and found.state is State.FAILED:
        raise HeadwaterError(f"{tenant}/{site}: {found.detail}")


def _ask(address: str) -> dict[str, Any]:
    import httpx

    from streams.errors import HeadwaterError

    try:
        answer = httpx.get(f"{address}/v1/status", timeout=5)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise HeadwaterError(
            f"{address}: no edge answers: {error}; is one running (headwater edge), or is it at "
            "another address (--at)?"
        ) from error
    return found

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
    """Show lanes, rates, lag, disk, link, and what was given up.

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

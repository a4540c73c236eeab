"""``headwater alerts``: the alerts process, and a look at its alerts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

alerts = typer.Typer(help="Run the alerts process, or look at its alerts.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(alerts, name="alerts")


@alerts.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    """Run the alerts process: rules on anomalies, signed webhooks.

    Example: headwater alerts
    """
    if context.invoked_subcommand is None:
        from streams.alerts.process import main
        from streams.settings import load

        main(load())


@alerts.command("list")
def list_alerts(
    json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False,
    firing: Annotated[bool, typer.Option(help="Only those that fire now")] = False,
) -> None:
    """Show the alerts of the last days, each in its last state.

    Example: headwater alerts list --firing
    """
    import asyncio

    import orjson

    from streams.adapters.config_log import now_in_force
    from streams.alerts.book import read_alerts, table_of
    from streams.alerts.desk import read_desk
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    async def read() -> list[dict[str, Any]]:
        settings = await now_in_force(load())
        desk = await read_desk(settings)
        return desk.standing(settings, await read_alerts(settings), now_ms())

    found = asyncio.run(read())
    if firing:
        found = [alert for alert in found if alert["state"] == "firing"]
    if json:
        print(orjson.dumps(found).decode())
    else:
        console().print(table_of(found))


_Author = Annotated[str | None, typer.Option(help="Who says so; default: who is logged in")]


@alerts.command()
def ack(
    alert: Annotated[str, typer.Argument(help="The id of an alert: alt_...")],
    author: _Author = None,
) -> None:
    """Acknowledge an alert: it is not repeated and not escalated.

    Example: headwater alerts ack alt_5f0c2b7d9e3a41c6a0d8e7f2
    """
    _say_of(alert, "acknowledge", author)


@alerts.command()
def resolve(
    alert: Annotated[str, typer.Argument(help="The id of an alert: alt_...")],
    author: _Author = None,
) -> None:
    """Take an alert for resolved, and tell so, although its rule does not say it yet.

    Example: headwater alerts resolve alt_5f0c2b7d9e3a41c6a0d8e7f2
    """
    _say_of(alert, "resolve", author)


def _say_of(alert: str, kind: str, author: str | None) -> None:
    import asyncio

    from rich.console import Console

    from streams.adapters.config_log import now_in_force
    from streams.alerts.book import read_alert
    from streams.alerts.desk import read_desk, say
    from streams.errors import HeadwaterError
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import who

    async def do() -> None:
        settings = await now_in_force(load())
        desk = await read_desk(settings)
        (found,) = desk.standing(settings, [await read_alert(settings, alert)], now_ms())
        if found["state"] != "firing":
            raise HeadwaterError(f"{alert} is {found['state']} already: there is nothing to {kind}")
        turn = {"turn": found["turn"]} if "turn" in found else {}
        await say(settings, {"kind": kind, "alert": alert, "author": who(author), **turn})

    asyncio.run(do())
    Console().print(f"{alert}: {kind}d")


@alerts.command()
def silence(
    rule: Annotated[list[str] | None, typer.Option(help="Globs over rules")] = None,
    severity: Annotated[list[str] | None, typer.Option(help="info, warning, critical")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Globs")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Globs")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Globs")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Globs")] = None,
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 15min, 2h, 7d")] = "2h",
    comment: Annotated[str, typer.Option(help="Why")] = "",
    author: _Author = None,
) -> None:
    """Keep matching alerts from being told for a while; what still fires then is told.

    Example: headwater alerts silence --device 'pump-*' --for 2h --comment "new seals"
    """
    import asyncio
    import secrets

    from rich.console import Console

    from streams.adapters.config_log import now_in_force
    from streams.alerts.desk import say
    from streams.errors import HeadwaterError
    from streams.recovery.held import parse_time
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import who

    given = {
        "rule": rule,
        "severity": severity,
        "tenant": tenant,
        "site": site,
        "device": device,
        "metric": metric,
    }
    globs = {name: values for name, values in given.items() if values}
    if not globs:
        raise HeadwaterError("say what to silence, such as --device 'pump-*'; all: --rule '*'")
    starts_ms = now_ms()
    ends_ms = 2 * starts_ms - parse_time(for_, starts_ms)
    if for_.isdigit() or ends_ms <= starts_ms:
        raise HeadwaterError(f"--for {for_}: expected a time such as 90s, 15min, 2h, 7d")
    control = {
        "kind": "silence",
        "id": f"sil_{secrets.token_hex(4)}",
        "globs": globs,
        "starts_ms": starts_ms,
        "ends_ms": ends_ms,
        "for_ms": ends_ms - starts_ms,
        "author": who(author),
        "comment": comment,
    }

    async def do() -> None:
        await say(await now_in_force(load()), control)

    asyncio.run(do())
    Console().print(f"{control['id']} holds for {for_}; end it: headwater alerts unsilence ID")


@alerts.command()
def unsilence(
    silence: Annotated[str, typer.Argument(help="The id of a silence: sil_...")],
    author: _Author = None,
) -> None:
    """End a silence now.

    Example: headwater alerts unsilence sil_0a1b2c3d
    """
    import asyncio

    from rich.console import Console

    from streams.adapters.config_log import now_in_force
    from streams.alerts.desk import read_desk, say
    from streams.errors import HeadwaterError
    from streams.settings import load
    from streams.terminal import who

    async def do() -> None:
        settings = await now_in_force(load())
        if silence not in (await read_desk(settings)).silences:
            raise HeadwaterError(
                f"{silence}: no silence has this id; see: headwater alerts silences"
            )
        await say(settings, {"kind": "unsilence", "id": silence, "author": who(author)})

    asyncio.run(do())
    Console().print(f"{silence} is over")


@alerts.command()
def silences(json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False) -> None:
    """Show the silences, also those that are over.

    Example: headwater alerts silences
    """
    import asyncio

    import orjson

    from streams.alerts.desk import read_desk, silences_table
    from streams.recovery.run import now_ms
    from streams.settings import load
    from streams.terminal import console

    desk = asyncio.run(read_desk(load()))
    if json:
        print(orjson.dumps(list(desk.silences.values())).decode())
    else:
        console().print(silences_table(desk, now_ms()))


@alerts.command()
def dead(json: Annotated[bool, typer.Option("--json", help="A JSON list")] = False) -> None:
    """Show the messages that were given up.

    Example: headwater alerts dead
    """
    import asyncio

    import orjson

    from streams.alerts.book import dead_table, read_dead
    from streams.settings import load
    from streams.terminal import console

    found = asyncio.run(read_dead(load()))
    if json:
        print(orjson.dumps(found).decode())
    else:
        console().print(dead_table(found))


@alerts.command()
def enable(
    endpoint: Annotated[
        str | None, typer.Argument(help="Its name; without: show what is disabled")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON list of what is disabled")] = False,
) -> None:
    """Send to an endpoint again that has answered 410 Gone.

    What it missed is dead: headwater alerts redeliver --all ENDPOINT.

    Example: headwater alerts enable team
    """
    import asyncio

    import orjson
    from rich.console import Console

    from streams.alerts.disabled import enable as let
    from streams.alerts.disabled import read_disabled
    from streams.settings import load

    settings = load()
    if endpoint is not None:
        asyncio.run(let(settings, endpoint))
        Console().print(f"{endpoint} is sent to again")
        return
    found = asyncio.run(read_disabled(settings))
    if json:
        print(orjson.dumps(found).decode())
    else:
        Console().print("\n".join(found) or "no endpoint is disabled")


@alerts.command()
def redeliver(
    message: Annotated[str | None, typer.Argument(help="The id of a dead message: msg_...")] = None,
    all_of: Annotated[
        str | None, typer.Option("--all", help="All dead messages to this endpoint")
    ] = None,
) -> None:
    """Put dead messages back into the outbox, under their own ids.

    Example: headwater alerts redeliver msg_0123
    """
    import asyncio

    from rich.console import Console

    from streams.alerts.book import redeliver as again
    from streams.errors import HeadwaterError
    from streams.settings import load

    if (message is None) == (all_of is None):
        raise HeadwaterError(
            "name a message, or an endpoint with --all; see: headwater alerts dead"
        )
    n = asyncio.run(again(load(), message, all_of))
    Console().print(f"{n} {'waits' if n == 1 else 'wait'} for delivery again")

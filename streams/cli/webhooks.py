"""``headwater webhooks``: secrets, and a receiver to try things with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

webhooks = typer.Typer(help="Signing secrets, and a receiver to try with.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(webhooks, name="webhooks")


@webhooks.command()
def secret(
    out: Annotated[Path | None, typer.Option(help="Write it to this new file (mode 0600)")] = None,
) -> None:
    """Make a signing secret.

    Example: headwater webhooks secret --out .headwater/webhook.secret
    """
    from rich.console import Console

    from streams.alerts.secrets import new_secret, write_secret

    if out is None:
        print(new_secret())
    else:
        write_secret(out)
        Console().print(f"wrote {out}; give the same secret to the receiver")


@webhooks.command()
def listen(
    secret_file: Annotated[Path, typer.Option(help="The secret that senders sign with")],
    port: Annotated[int, typer.Option(help="0: a free port")] = 8200,
    json: Annotated[bool, typer.Option("--json", help="One JSON line per message")] = False,
) -> None:
    """Receive alerts on loopback, verify their signatures and show them, until Ctrl-C.

    Example: headwater webhooks listen --secret-file .headwater/webhook.secret
    """
    from streams.alerts.receiver import serve_forever

    serve_forever(secret_file, port, as_json=json)

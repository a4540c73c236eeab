"""``headwater tokens``: what devices show that send over HTTP or CoAP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

tokens = typer.Typer(
    help="Make and revoke tokens of devices and sites for HTTP and CoAP.", no_args_is_help=True
)

File = Annotated[
    Path | None, typer.Option(help="Default: intake.tokens, or .headwater/tokens.json")
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text")]
_HERE = Path(".headwater/tokens.json")
_DAY_MS = 86_400_000


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(tokens, name="tokens")


@tokens.command()
def issue(
    whose: Annotated[str, typer.Argument(help="TENANT/SITE/DEVICE, or TENANT/SITE for all of it")],
    file: File = None,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long it counts")] = 365,
    json: Json = False,
) -> None:
    """Make a token and show it, once: only its hash is kept.

    Processes see it at once, without a restart.

    Example: headwater tokens issue default/north/pump-1
    """
    import secrets
    import time

    import orjson

    from streams.intake.identities import Token, hash_of, identity_of
    from streams.intake.token_file import read_tokens, write_tokens

    path = _path(file)
    known = read_tokens(path) if path.exists() else []
    token = f"hwt_{secrets.token_urlsafe(32)}"
    expires_ms = time.time_ns() // 1_000_000 + days * _DAY_MS
    write_tokens(path, [*known, Token(hash_of(token), identity_of(whose), expires_ms)])
    if json:
        print(orjson.dumps({"identity": whose, "token": token, "expires_ms": expires_ms}).decode())
    else:
        print(token)


@tokens.command()
def revoke(
    whose: Annotated[str, typer.Argument(help="As it was issued for")], file: File = None
) -> None:
    """Refuse all tokens of a device or site from now on.

    Example: headwater tokens revoke default/north/pump-1
    """
    import time
    from dataclasses import replace

    from streams.errors import SettingsError
    from streams.intake.identities import identity_of
    from streams.intake.token_file import read_tokens, write_tokens

    path, now_ms = _path(file), time.time_ns() // 1_000_000
    identity, known = identity_of(whose), read_tokens(_path(file))
    mine = [one for one in known if one.identity == identity and not one.revoked_ms]
    if not mine:
        raise SettingsError(f"{path}: {whose} has no token that counts")
    write_tokens(path, [replace(one, revoked_ms=now_ms) if one in mine else one for one in known])
    print(f"revoked {len(mine)} tokens of {whose}")


@tokens.command("list")
def show(file: File = None, json: Json = False) -> None:
    """Show whose tokens there are, and until when; the tokens themselves nobody knows.

    Example: headwater tokens list --json
    """
    import time
    from datetime import UTC, datetime

    import orjson
    from rich.table import Table

    from streams.intake.token_file import read_tokens
    from streams.terminal import console

    now_ms = time.time_ns() // 1_000_000
    found = [
        (str(one.identity), one.expires_ms, not one.revoked_ms and one.expires_ms > now_ms)
        for one in read_tokens(_path(file))
    ]
    if json:
        names = ("identity", "expires_ms", "counts")
        print(orjson.dumps([dict(zip(names, one, strict=True)) for one in found]).decode())
        return
    table = Table("whose", "until", "counts")
    for whose, expires_ms, counts in found:
        until = datetime.fromtimestamp(expires_ms / 1000, UTC)
        table.add_row(whose, f"{until:%Y-%m-%d}", "yes" if counts else "no")
    console().print(table)


def _path(file: Path | None) -> Path:
    from streams.settings import load

    return file or load(None).intake.tokens or _HERE

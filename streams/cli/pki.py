"""``headwater pki``: certificates for MQTT and keys for twins, for development and small sites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

pki = typer.Typer(help="Make certificates for MQTT and keys for twins.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Where the CA is")]
Site = Annotated[str, typer.Argument(help="TENANT/SITE")]
Days = Annotated[int, typer.Option(min=1, max=3_650, help="How long the certificate counts")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text")]
_HERE = Path(".headwater/pki")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(pki, name="pki")


@pki.command()
def init(
    folder: Folder = _HERE,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name or address of the broker; repeat it")
    ] = None,
) -> None:
    """Make a CA, a certificate for the broker and the hub's key.

    Example: headwater pki init --name broker.example.org
    """
    made = _pki(folder)
    made.init(name or ["localhost", "127.0.0.1"], _now())
    print(f"{folder}: ca.pem, broker.pem, broker.key, hub.key, registry.json, revoked.pem")
    print(f"gateways and workers: twins.registry = '{made.registry}'")
    print(f"gateways:             gateway.twin_key = '{folder / 'hub.key'}'")


@pki.command()
def issue(
    site: Site,
    *,
    folder: Folder = _HERE,
    days: Days = 365,
    device: Annotated[
        list[str] | None, typer.Option(help="Glob of devices that it may write; repeat it")
    ] = None,
    path: Annotated[
        list[str] | None, typer.Option(help="Glob of fields that it may write; repeat it")
    ] = None,
    release: Annotated[
        list[str] | None, typer.Option(help="Glob of latches that it may release; repeat it")
    ] = None,
    json: Json = False,
) -> None:
    """Make what a site needs: a client certificate, a replica key, the hub's public key.

    Example: headwater pki issue default/north --path 'reported.*' --path 'desired.*'
    """
    tenant, name = _split(site)
    every = ["*"]
    found = _pki(folder).issue(
        *(tenant, name, _now()),
        days=days,
        devices=device or every,
        paths=path or every,
        releases=release or every,
    )
    _tell(site, found, json=json)


@pki.command()
def device(
    name: Annotated[str, typer.Argument(help="TENANT/SITE/DEVICE")],
    folder: Folder = _HERE,
    days: Days = 365,
    json: Json = False,
) -> None:
    """Make a certificate for one device, which may publish as itself and as nobody else.

    Example: headwater pki device default/north/pump-1
    """
    import orjson

    site, slash, last = name.rpartition("/")
    if not slash:
        raise typer.BadParameter(
            f"{name!r}: write TENANT/SITE/DEVICE, such as default/north/pump-1"
        )
    made = _pki(folder).certify_device(*_split(site), last, _now(), days)
    if json:
        print(orjson.dumps({"device": name, "folder": str(made)}).decode())
        return
    print(f"{made}: client.pem, client.key, ca.pem")


@pki.command()
def gateway(folder: Folder = _HERE, days: Days = 365) -> None:
    """Make a certificate for the gateways, with the name gateway.

    Example: headwater pki gateway
    """
    made = _pki(folder).certify_gateway(_now(), days)
    print(f"broker.cert_file = '{made / 'gateway.pem'}'")
    print(f"broker.key_file = '{made / 'gateway.key'}'")


@pki.command()
def rotate(site: Site, folder: Folder = _HERE, days: Days = 365, json: Json = False) -> None:
    """Make new keys for a site. The old ones count until they are revoked, so nothing stops.

    Example: headwater pki rotate default/north
    """
    _tell(site, _pki(folder).rotate(*_split(site), _now(), days=days), json=json)


@pki.command()
def revoke(
    what: Annotated[str, typer.Argument(help="Id of a key, or TENANT/SITE or TENANT/SITE/DEVICE")],
    folder: Folder = _HERE,
) -> None:
    """Refuse what a key signs and a certificate shows from now on. What it wrote before stays.

    Gateways see it with the next envelope; the broker needs revoked.pem (crlfile) and a SIGHUP,
    the HTTP intake (intake.crl_file) a restart.

    Example: headwater pki revoke default/north
    """
    count = _pki(folder).revoke(what, _now())
    print(f"revoked {count} keys and certificates of {what}; {folder / 'revoked.pem'}")


@pki.command("list")
def show(folder: Folder = _HERE, json: Json = False) -> None:
    """Show the registered keys.

    Example: headwater pki list
    """
    import orjson
    from rich.table import Table

    from streams.terminal import console

    entries = _pki(folder).entries()
    if json:
        print(orjson.dumps([entry.model_dump() for entry in entries]).decode())
        return
    table = Table("key", "whose", "devices", "fields", "releases", "counts")
    for entry in entries:
        whose = "hub" if entry.role == "hub" else f"{entry.tenant}/{entry.site}"
        globs = (" ".join(part) for part in (entry.devices, entry.paths, entry.releases))
        table.add_row(entry.kid, whose, *globs, "revoked" if entry.revoked else "yes")
    console().print(table)


def _tell(site: str, found: Any, *, json: bool) -> None:
    import orjson

    if json:
        print(orjson.dumps({"site": site, "kid": found.kid, "folder": str(found.folder)}).decode())
        return
    print(f"{found.folder}: client.pem, client.key, replica.key, registry.json, ca.pem")
    print(f"key {found.kid}; at the edge:")
    print(f"  edge.key = '{found.folder / 'replica.key'}'")
    print(f"  twins.registry = '{found.folder / 'registry.json'}'")


def _split(site: str) -> tuple[str, str]:
    tenant, slash, name = site.partition("/")
    if not slash:
        raise typer.BadParameter(f"{site!r}: write TENANT/SITE, such as default/north")
    return tenant, name


def _pki(folder: Path) -> Any:
    from streams.pki import Pki

    return Pki(folder)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)

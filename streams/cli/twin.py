"""``headwater twin``: look at device twins and change them, at an edge or in the cloud."""

from __future__ import annotations

from typing import Annotated, Any

import typer

twin = typer.Typer(help="Look at device twins and change them.", no_args_is_help=True)

Device = Annotated[str, typer.Argument(help="The device")]
Edge = Annotated[str | None, typer.Option(help="Ask this edge, such as http://127.0.0.1:8106")]
Api = Annotated[str | None, typer.Option(help="Ask this API; default: the one of the settings")]
Tenant = Annotated[str, typer.Option(help="The device's tenant, in the cloud")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(twin, name="twin")


@twin.command()
def get(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show a twin: every field, who won it and when.

    Example: headwater twin get pump-1 --edge http://127.0.0.1:8106
    """
    from rich.console import Console

    found = _ask("GET", device, edge, api, tenant)
    if json:
        _print(found)
        return
    console = Console()
    console.print(_fields(found))
    console.print(f"conflicts {len(found['conflicts'])}   digest {found['digest']}")


@twin.command("set")
def set_fields(
    device: Device,
    fields: Annotated[list[str], typer.Argument(help="path=value; value is JSON or text")],
    *,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Change fields; null deletes. An edge answers with the twin, the cloud with 202.

    Example: headwater twin set pump-1 desired.speed=40 tags.room='"hall 3"'
    """
    from rich.console import Console

    answer = _ask("PATCH", device, edge, api, tenant, body=dict(map(_assignment, fields)))
    if json:
        _print(answer)
    elif "fields" in answer:
        Console().print(_fields(answer))
    else:
        place = f"{answer['partition']}/{answer['offset']}"
        Console().print(f"accepted as twin.updates/{place}; it shows once the worker has folded it")


@twin.command()
def conflicts(
    device: Device,
    edge: Edge = None,
    api: Api = None,
    tenant: Tenant = "default",
    json: Json = False,
) -> None:
    """Show the conflict ledger of a twin: both writes, which was chosen, and why.

    Example: headwater twin conflicts pump-1
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = _ask("GET", device, edge, api, tenant)["conflicts"]
    if json:
        _print(found)
        return
    table = Table("path", "chosen", "by", "not chosen", "by", "why", title=f"Conflicts of {device}")
    for entry in found:
        sides = [entry["winner"], entry["loser"]]
        shown = [
            text for side in sides for text in (_value(side), f"{side['side']}\n{_when(side)}")
        ]
        table.add_row(*map(escape, (entry["path"], *shown, entry["why"])))
    Console().print(table if found else f"{device}: no conflicts")


def _assignment(text: str) -> tuple[str, Any]:
    import orjson

    path, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: write path=value, such as desired.speed=40")
    try:
        return path, orjson.loads(value)
    except orjson.JSONDecodeError:
        return path, value


def _ask(
    method: str,
    device: str,
    edge: str | None,
    api: str | None,
    tenant: str,
    *,
    body: dict[str, Any] | None = None,
) -> Any:
    from urllib.parse import quote

    import httpx

    from streams.errors import ServiceError
    from streams.settings import load

    if edge and api:
        raise typer.BadParameter("give --edge or --api, not both")
    ops = load().ops
    base = (edge or api or f"http://{ops.host}:{ops.api_port}").rstrip("/")
    query = None if edge else {"tenant": tenant}
    url = f"{base}/v1/devices/{quote(device, safe='')}/twin"
    try:
        answer = httpx.request(method, url, params=query, json=body, timeout=15.0)
    except httpx.HTTPError as error:
        process = "edge" if edge else "api"
        raise ServiceError(
            f"{base} cannot be reached: {error}; is it running? (headwater {process})"
        ) from error
    if answer.is_error:
        raise ServiceError(f"{url} answered {answer.status_code}: {_detail(answer)}")
    return answer.json()


def _detail(answer: Any) -> str:
    """Return the sentence of a refusal, or its text as it came."""
    import orjson

    try:
        detail = orjson.loads(answer.content)["detail"]
        return str(detail["detail"] if isinstance(detail, dict) else detail)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return str(answer.text[:300])


def _fields(found: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("field", "value", "written by", "when (UTC)", "policy", title=found["device"])
    for path, field in found["fields"].items():
        over = ", ".join(f"{side['side']}: {_value(side)}" for side in field["over"])
        written = field["winner"] + (f"  (over {over})" if over else "")
        cells = (path, _value(field), written, _when(field), field["policy"])
        table.add_row(*map(escape, cells))
    return table


def _value(side: dict[str, Any]) -> str:
    import orjson

    return "(deleted)" if side.get("deleted") else orjson.dumps(side["value"]).decode()


def _when(side: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    try:
        return f"{datetime.fromtimestamp(side['at_ms'] / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    except (ValueError, OverflowError, OSError):
        # A clock that is wrong by millennia is shown as it is.
        return f"{side['at_ms']} ms"


def _print(data: Any) -> None:
    import orjson

    print(orjson.dumps(data).decode())

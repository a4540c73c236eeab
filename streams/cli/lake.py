"""``headwater lake``: SQL over what went through."""

from __future__ import annotations

from typing import Annotated

import typer

lake = typer.Typer(help="SQL over the lake.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="A JSON list of rows")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(lake, name="lake")


@lake.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL, over readings, windows, aggregates, anomalies")],
    json: Json = False,
    limit: Annotated[int, typer.Option(help="Rows shown at most")] = 50,
) -> None:
    """Run a query with DuckDB.

    Example: headwater lake query "SELECT device, max(max) FROM windows GROUP BY device"
    """
    import orjson
    from rich.console import Console
    from rich.table import Table

    from streams import lake as tables

    found = tables.sql(sql)
    rows = found.slice(0, limit).to_pylist()
    if json:
        print(orjson.dumps(rows, default=str).decode())
        return
    table = Table(*found.column_names)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console()
    console.print(table)
    if len(found) > limit:
        console.print(f"{limit} of {len(found):,} rows; --limit shows more")


@lake.command("tables")
def list_tables(json: Json = False) -> None:
    """Show the tables and how many rows each holds.

    Example: headwater lake tables
    """
    import orjson
    from rich.console import Console
    from rich.table import Table

    from streams import lake as data

    counts = {
        name: data.sql(f'SELECT count(*) AS n FROM "{name}"')["n"][0].as_py()  # noqa: S608 our names
        for name in data.tables()
    }
    if json:
        print(orjson.dumps(counts).decode())
        return
    table = Table("table", "rows")
    for name, rows in counts.items():
        table.add_row(name, f"{rows:,}")
    Console().print(table)

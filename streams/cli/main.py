"""The ``headwater`` command: each file beside this one adds its commands."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

import typer
from rich.console import Console
from rich.markup import escape

import streams.cli
from streams.errors import HeadwaterError

app = typer.Typer(
    name="headwater",
    help="Stream analytics with CRDT state sync, for fleets of devices.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _register() -> None:
    for module in sorted(m.name for m in pkgutil.iter_modules(streams.cli.__path__)):
        if module != "main" and not module.startswith("_"):
            import_module(f"streams.cli.{module}").register(app)


_register()


def main() -> None:
    """Run the command line; an error that we raise on purpose is a message, not a traceback."""
    try:
        app()
    except HeadwaterError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()

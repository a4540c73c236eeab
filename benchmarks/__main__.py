"""``python -m benchmarks [NAME]``: run one benchmark, or all."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import publish


def names() -> list[str]:
    """Return the names of all benchmarks: the packages beside this file."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if module.ispkg)


def main(
    name: Annotated[str | None, typer.Argument(help="Default: all")] = None,
    seconds: Annotated[float, typer.Option(help="Length of timed parts")] = 60.0,
    rate: Annotated[float, typer.Option(help="Readings per second, where that is given")] = 2000.0,
    seed: Annotated[int, typer.Option()] = 1,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run benchmarks; exits 0 also where a target is missed, and says so."""
    known = names()
    if name is not None and name not in known:
        raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(known)}")
    for one in [name] if name else known:
        measures = import_module(f"benchmarks.{one}").run(seconds=seconds, rate=rate, seed=seed)
        publish(one, measures, as_json=json)


if __name__ == "__main__":
    typer.run(main)

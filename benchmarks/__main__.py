"""``python -m benchmarks [NAME]``: run one benchmark, or all."""

from __future__ import annotations

import pkgutil
import signal
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import publish


def names() -> list[str]:
    """Return the names of all benchmarks: the packages beside this file."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if module.ispkg)


def main(
    name: Annotated[str | None, typer.Argument(help="Default: all")] = None,
    *,
    seconds: Annotated[float, typer.Option(help="Length of timed parts")] = 60.0,
    rate: Annotated[float, typer.Option(help="Readings per second, where that is given")] = 2000.0,
    seed: Annotated[int, typer.Option()] = 1,
    runs: Annotated[int, typer.Option(help="Runs of which the median counts")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Parts of a benchmark; repeat it")] = None,
    input: Annotated[Path | None, typer.Option(help="Readings to use, CSV or Parquet")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of labelled files")] = None,
    history: Annotated[Path | None, typer.Option(help="File for every single run")] = None,
    readings: Annotated[int, typer.Option(help="Length of a soak")] = 50_000_000,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run benchmarks; exits 0 also where a target is missed, and says so.

    A benchmark is given those of the options that it has.
    """
    given: dict[str, Any] = {"seconds": seconds, "rate": rate, "seed": seed, "runs": runs}
    given |= {"only": only or (), "input": input, "data": data, "history": history}
    given["readings"] = readings
    known = names()
    if name is not None and name not in known:
        raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(known)}")
    for one in [name] if name else known:
        run = import_module(f"benchmarks.{one}").run
        measures = run(**{key: given[key] for key in signature(run).parameters})
        publish(one, measures, as_json=json)


def _end(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # Servers and children end with the benchmark, also when it is told to.
    signal.signal(signal.SIGTERM, _end)
    typer.run(main)

"""What every benchmark prints and writes."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil
from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured figure; ``target`` is in words (``< 1000``), ``met`` None without one."""

    measure: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None


def at_most(measure: str, value: float, unit: str, bound: float) -> Measure:
    """Return a figure that is to be at most *bound*."""
    return Measure(measure, round(value, 3), unit, f"<= {bound:g}", value <= bound)


def at_least(measure: str, value: float, unit: str, bound: float) -> Measure:
    """Return a figure that is to be at least *bound*."""
    return Measure(measure, round(value, 3), unit, f">= {bound:g}", value >= bound)


def machine() -> str:
    """Return the machine in a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / _GIB
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}"


def publish(name: str, measures: list[Measure], *, as_json: bool) -> None:
    """Print the figures and write them to ``benchmarks/out/NAME.json``."""
    OUT.mkdir(exist_ok=True)
    content = orjson.dumps([asdict(m) for m in measures], option=orjson.OPT_INDENT_2)
    (OUT / f"{name}.json").write_bytes(content)
    if as_json:
        print(content.decode())
        return
    table = Table("measure", "value", "unit", "target", "", title=f"{name} on {machine()}")
    for m in measures:
        mark = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[m.met]
        table.add_row(m.measure, f"{m.value:,.6g}", m.unit, m.target, mark)
    Console().print(table)

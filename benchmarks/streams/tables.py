"""Tables on the way: the comparison, a system a row; and what goes on over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from benchmarks.streams.outcome import Summary


def table(title: str, about: Mapping[str, str], found: Mapping[str, Summary]) -> Table:
    """Return the medians of all systems on one form of the data."""
    columns = ("readings/s", "CPU s/million", "peak MiB", "changelog B/s", "readings")
    made = Table("system", *columns, "as it ran", title=title)
    for system, s in found.items():
        figures = (
            f"{s.per_s:,.0f}",
            f"{s.cpu_per_million_s:.2f}",
            f"{s.peak_mib:,.0f}",
            f"{s.changelog_per_s:,.0f}",
            f"{s.readings:,}",
        )
        made.add_row(system, *figures, about[system])
    return made


def rows_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[float | str]]) -> Table:
    """Return a table of names and numbers."""
    made = Table(*columns, title=title)
    for row in rows:
        made.add_row(*map(_shown, row))
    return made


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.1f}" if value % 1 else f"{value:,.0f}"

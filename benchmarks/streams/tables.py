"""The comparison as one table a form: a system a row, and what it was told to do."""

from __future__ import annotations

from collections.abc import Mapping

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

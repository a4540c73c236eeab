"""The audit on a terminal: classes per site and per device, and what does not hold."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streams.audit import CLASSES, AuditReport

_PROBLEMS = 20


def page(report: AuditReport, devices: int) -> Group:
    """Return everything that a person is shown.

    :param devices: rows of the table of devices, those with most refused readings first.
    """
    parts: list[RenderableType] = [_sites(report)]
    if devices and report.devices:
        parts.append(_devices(report, devices))
    if devices and report.edges:
        parts.append(_edges(report, devices))
    if devices and report.edge_windows:
        parts.append(_edge_windows(report, devices))
    parts.append(
        f"{report.received:,} readings in the log; {report.windows:,} windows; "
        f"{report.in_open_windows:,} readings in windows still open; "
        f"{report.refused_records:,} messages refused whole"
    )
    parts += [
        f"lake: {found['there']:,} rows of {name} there, {found['missing']:,} missing"
        for name, found in report.lake.items()
    ]
    for problem in report.problems[:_PROBLEMS]:
        parts.append(Text.from_markup(f"[red]✗[/] {escape(problem)}"))
    hidden = len(report.problems) - _PROBLEMS
    if hidden > 0:
        parts.append(f"and {hidden:,} more; --json tells all")
    if report.holds:
        parts.append(Text.from_markup("[green]✓ every identity holds[/]"))
    return Group(*parts)


def _sites(report: AuditReport) -> Table:
    table = Table("site", "devices", *CLASSES, box=SIMPLE_HEAD, pad_edge=False)
    for site in report.sites:
        table.add_row(escape(site["site"]), f"{site['devices']:,}", *_counts(site))
    table.add_section()
    table.add_row("all", f"{len(report.devices):,}", *_counts(report.classes), style="bold")
    return table


def _devices(report: AuditReport, limit: int) -> Table:
    ranked = sorted(
        report.devices,
        key=lambda d: (-sum(d[name] for name in CLASSES[1:]), d["site"], d["device"]),
    )
    more = len(ranked) - limit
    caption = f"{more:,} more devices; --devices shows them" if more > 0 else None
    table = Table("site", "device", *CLASSES, box=SIMPLE_HEAD, pad_edge=False, caption=caption)
    for device in ranked[:limit]:
        table.add_row(escape(device["site"]), escape(device["device"]), *_counts(device))
    return table


def _edges(report: AuditReport, limit: int) -> Table:
    names = ("measured", "sent", "filtered", "given_up", "in_log")
    ranked = sorted(report.edges, key=lambda d: (-d["given_up"], -d["measured"], d["device"]))
    more = len(ranked) - limit
    caption = f"{more:,} more devices; --devices shows them" if more > 0 else None
    shown = ("at the edge", "device", *(name.replace("_", " ") for name in names))
    table = Table(*shown, box=SIMPLE_HEAD, pad_edge=False, caption=caption)
    for device in ranked[:limit]:
        counts = (f"{device[name]:,}" for name in names)
        table.add_row(escape(device["site"]), escape(device["device"]), *counts)
    return table


def _edge_windows(report: AuditReport, limit: int) -> Table:
    """Those first whose counts are furthest apart."""
    names = ("counted", "open", "in_log")
    ranked = sorted(
        report.edge_windows,
        key=lambda d: (-abs(d["counted"] - d["open"] - d["in_log"]), d["device"], d["window"]),
    )
    more = len(ranked) - limit
    caption = f"{more:,} more; --devices shows them" if more > 0 else None
    shown = ("windows of an edge", "device", "window", *(name.replace("_", " ") for name in names))
    table = Table(*shown, box=SIMPLE_HEAD, pad_edge=False, caption=caption)
    for device in ranked[:limit]:
        labels = (escape(device[name]) for name in ("site", "device", "window"))
        table.add_row(*labels, *(f"{device[name]:,}" for name in names))
    return table


def _counts(counts: dict[str, Any]) -> list[str]:
    return [f"{counts[name]:,}" for name in CLASSES]

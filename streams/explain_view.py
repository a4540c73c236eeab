"""An explanation on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streams.explain import COMPARED, Explanation
from streams.terminal import utc

_SIGNS = {
    "equal": "[green]= equal[/]",
    "rounding": "[yellow]≈ equal to rounding[/]",
    "differs": "[red]✗ differs[/]",
}


def page(found: Explanation, rows: int) -> Group:
    """Return everything that a person is shown.

    :param rows: readings shown at the beginning and at the end, and of those left out.
    """
    head = (
        f"[bold]{escape(found.device)}/{escape(found.metric)}[/], window {escape(found.window)} "
        f"[{utc(found.start_ms, with_ms=True)}, {utc(found.end_ms, with_ms=True)}) UTC"
    ).replace("[2", "\\[2")
    parts: list[RenderableType] = [Text.from_markup(head), _revisions(found)]
    corrections = sum(row["is_correction"] for row in found.inside)
    parts.append(f"{len(found.inside):,} readings inside, {corrections:,} of them corrections")
    parts.append(_inside(found.inside, rows))
    counts = Counter(row["class"] for row in found.left_out)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    parts.append(f"{len(found.left_out):,} left out{': ' if told else ''}{told}")
    if found.left_out:
        parts.append(_left_out(found.left_out, rows))
    parts += [
        Text.from_markup(f"[red]refused whole[/] {escape(one['reason'])}: {escape(one['detail'])}")
        for one in found.refused[:rows]
    ]
    return Group(*parts, *_verdict(found))


def _revisions(found: Explanation) -> Table:
    table = _table("revision", "reason", *COMPARED, numbers=COMPARED)
    for row in found.revisions:
        rank = "provisional" if row["rank"] < 0 else str(row["rank"])
        table.add_row(rank, row["reason"], *(_number(row[name]) for name in COMPARED))
    table.add_section()
    again = [_number(found.recomputed[name]) for name in COMPARED]
    table.add_row("recomputed", "from its readings", *again, style="bold")
    if found.current is not None:
        table.add_row("", "", *(_SIGNS[found.compared[name]] for name in COMPARED))
    return table


def _inside(inside: Sequence[dict[str, Any]], rows: int) -> Table:
    table = _table("arrived (UTC)", "time (UTC)", "value", "seq", "", "source", numbers=("value",))
    cut = len(inside) - 2 * rows
    for number, row in enumerate(inside):
        if cut > 0 and rows <= number < len(inside) - rows:
            if number == rows:
                table.add_row("", f"… {cut:,} more", "", "", "", "")
            continue
        notes = {"is_redriven": "counted by redrive", "is_correction": "correction"}
        note = next((text for name, text in notes.items() if row[name]), "")
        table.add_row(*_reading(row), note, row["source"])
    return table


def _left_out(left_out: Sequence[dict[str, Any]], rows: int) -> Table:
    names = ("arrived (UTC)", "time (UTC)", "value", "seq", "class", "why", "source")
    table = _table(*names, numbers=("value",))
    for row in left_out[: 2 * rows]:
        why = f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"]
        table.add_row(*_reading(row), row["class"], escape(why), row["source"])
    if len(left_out) > 2 * rows:
        table.add_row("", f"… {len(left_out) - 2 * rows:,} more", *[""] * 5)
    return table


def _reading(row: dict[str, Any]) -> tuple[str, str, str, str]:
    value = _number(row["value"]) if row["text"] is None else escape(row["text"])
    seq = "" if row["seq"] is None else str(row["seq"])
    return utc(row["kafka_ms"], with_ms=True), utc(row["t_ms"], with_ms=True), value, seq


def _verdict(found: Explanation) -> list[RenderableType]:
    if found.current is None:
        return ["the window is open: no result was told yet"]
    if found.is_open:
        return ["the window is open: its result is provisional"]
    if found.holds:
        return [Text.from_markup("[green]✓ the result is what its readings make[/]")]
    return [Text.from_markup("[red]✗ the result is not what its readings make[/]")]


def _table(*names: str, numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.10g}"

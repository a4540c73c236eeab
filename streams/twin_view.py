"""Twins as tables and lines that a person can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from streams.terminal import utc
from streams.twin_history import FieldChange, History


def fields_table(twin: Mapping[str, Any]) -> Table:
    """Return the fields of a twin: value, who wrote it and when, kind and policy."""
    table = Table("field", "value", "written by", "when (UTC)", "merges as", title=twin["device"])
    for path, field in twin["fields"].items():
        over = ", ".join(f"{side['side']}: {value_of(side)}" for side in field["over"])
        written = field["winner"] + (f"  (over {over})" if over else "")
        when = when_of(field) + ("  clock ahead" if field.get("clock_ahead") else "")
        cells = (path, value_of(field), written, when, field["policy"])
        table.add_row(*map(escape, cells))
    return table


def conflicts_table(device: str, conflicts: Sequence[Mapping[str, Any]]) -> Table:
    """Return the conflict ledger: both writes, which was chosen, and why."""
    table = Table("path", "chosen", "by", "not chosen", "by", "why", title=f"Conflicts of {device}")
    for entry in conflicts:
        sides = [entry["winner"], entry["loser"]]
        shown = [
            text for side in sides for text in (value_of(side), f"{side['side']}\n{when_of(side)}")
        ]
        table.add_row(*map(escape, (entry["path"], *shown, entry["why"])))
    return table


def diff_lines(changes: Sequence[FieldChange]) -> list[str]:
    """Return a line for each field that changed, as markup."""
    lines = []
    for change in changes:
        before, after = (None if s is None else value_of(s) for s in (change.before, change.after))
        path = escape(change.path)
        if after is None:
            lines.append(f"[red]- {path}[/] was {escape(before or '')}")
        elif before is None:
            lines.append(f"[green]+ {path}[/] = {escape(after)}")
        else:
            lines.append(f"[yellow]~ {path}[/] = {escape(after)}, was {escape(before)}")
    return lines


def history_lines(history: History) -> list[str]:
    """Return the steps of a history as lines, as markup."""
    lines = []
    if history.first_offset:
        lines.append(
            f"twin.updates begins at offset {history.first_offset}: what is older is not shown"
        )
    for step in history.steps:
        lines.append(f"[bold]{utc(step.at_ms, with_ms=True)}[/]  {escape(step.source)}")
        lines += [f"  {line}" for line in diff_lines(step.fields)]
        lines += [f"  {line}" for line in conflict_lines(step.conflicts)]
    return lines


def conflict_lines(conflicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each conflict, as markup."""
    return [f"[magenta]! {escape(one['path'])}[/] {escape(one['why'])}" for one in conflicts]


def value_of(side: Mapping[str, Any]) -> str:
    """Return a value as JSON."""
    return "(deleted)" if side.get("deleted") else orjson.dumps(side["value"]).decode()


def when_of(side: Mapping[str, Any]) -> str:
    """Return when something was written, by its writer's clock."""
    return utc(side["at_ms"], with_ms=True)

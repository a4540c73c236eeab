"""Commands as tables and lines that a person can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from streams.terminal import utc

_COLOURS = {"done": "green", "failed": "red", "lost": "red", "refused": "red"}
_COLOURS |= {"expired": "yellow", "cancelled": "yellow", "unknown": "yellow"}


def commands_table(device: str, commands: Sequence[Mapping[str, Any]]) -> Table:
    """Return the commands of a device, the newest status of each."""
    table = Table("id", "name", "arguments", "state", "at (UTC)", "deadline (UTC)", "says")
    table.title = f"Commands of {device}"
    for one in commands:
        times = [_time(one, "at_ms"), _time(one, "deadline_ms")]
        cells = [one["id"], one["name"], _json(one["args"])]
        says = escape(outcome_of(one))
        table.add_row(*map(escape, cells), _state(one), *times, says)
    return table


def status_line(status: Mapping[str, Any]) -> str:
    """Return a status as one line of markup."""
    says = outcome_of(status)
    name = escape(f"{status['id']}  {status['name']}")
    return f"{_time(status, 'at_ms')}  {name}  {_state(status)}" + (
        f"  {escape(says)}" if says else ""
    )


def outcome_of(status: Mapping[str, Any]) -> str:
    """Return what is said beside the state: why, the result, that it is to be taken back."""
    wanted = "to be cancelled" if status["cancel"] and not status["ended"] else ""
    result = "" if status["result"] is None else _json(status["result"])
    return "; ".join(filter(None, (wanted, status["reason"], result)))


def _state(status: Mapping[str, Any]) -> str:
    colour = _COLOURS.get(status["state"])
    return f"[{colour}]{status['state']}[/]" if colour else str(status["state"])


def _time(status: Mapping[str, Any], name: str) -> str:
    return utc(status[name]) if name in status else ""


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

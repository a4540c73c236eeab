"""Held records and plans as tables for people and as plain values for machines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.recovery.counting import Revision
from streams.recovery.held import Held
from streams.recovery.ledger import State
from streams.recovery.plans import Plan, reading_of
from streams.recovery.run import Case, Done
from streams.terminal import utc

_SHOWN = 50
_WORD = re.compile(r"[a-z]+(-[a-z]+)+")
_COLOURS = {
    State.WAITING: "yellow",
    State.UNFINISHED: "red",
    State.UNDER_WAY: "cyan",
    State.DROPPED: "dim",
}


def describe(held: Held) -> dict[str, Any]:
    """Return a held record as plain values."""
    return {
        "topic": held.topic,
        "partition": held.partition,
        "offset": held.offset,
        "identity": held.identity,
        "written_ms": held.written_ms,
        "tenant": held.headers.get("hw-tenant"),
        "site": held.headers.get("hw-site"),
        "device": held.device or None,
        "reason": held.reason,
        "detail": held.detail,
        "source": held.source,
        **reading_of(held),
    }


def case_json(case: Case) -> dict[str, Any]:
    """Return a case as plain values."""
    return {"state": case.state.value, **describe(case.held)}


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    return {
        "can_go": plan.can_go,
        "why_not": plan.why_not,
        "readings": plan.readings,
        **describe(plan.held),
    }


def revision_json(revision: Revision) -> dict[str, Any]:
    """Return a revision as plain values."""
    place = revision.place
    return {
        **{name: getattr(place, name) for name in ("tenant", "device", "metric", "window")},
        "start_ms": place.start_ms,
        "end_ms": place.end_ms,
        "rank_before": revision.rank_before,
        "count_before": revision.count_before,
        "rank": revision.rank,
        "count": revision.count,
    }


def summary(
    action: str, plans: Sequence[Plan], revisions: Sequence[Revision], done: Done | None
) -> dict[str, Any]:
    """Return what a command would do, or did, as one JSON object."""
    going = [plan for plan in plans if plan.can_go]
    return {
        "action": action,
        "dry_run": done is None,
        "selected": len(plans),
        "can_go": len(going),
        "readings": sum(plan.readings for plan in going),
        "done": done.records if done else 0,
        "left_to_others": done.left_to_others if done else 0,
        "written_before": done.written_before if done else 0,
        "records": [plan_json(plan) for plan in plans],
        "revisions": [revision_json(revision) for revision in revisions],
    }


def print_cases(console: Console, topic: str, cases: Sequence[Case]) -> None:
    """Print held records and how each stands."""
    if not cases:
        console.print(f"[dim]{topic}: nothing that is meant lies there[/]")
        return
    table = _table("state", "written (UTC)", "device", "metric", "time (UTC)", "value", "why")
    for case in cases[:_SHOWN]:
        colour = _COLOURS.get(case.state, "green")
        table.add_row(f"[{colour}]{case.state.value}[/]", *_cells(case.held, case.held.detail))
    console.print(table)
    counts = Counter(case.state.value for case in cases)
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
    console.print(f"{told}{_rest(cases)}")


def print_plans(
    console: Console, action: str, plans: Sequence[Plan], revisions: Sequence[Revision]
) -> None:
    """Print what would be done, and why something cannot."""
    if not plans:
        console.print("[dim]nothing that is meant waits there[/]")
        return
    table = _table("", "written (UTC)", "device", "metric", "time (UTC)", "value", "")
    for plan in plans[:_SHOWN]:
        sign = "[green]✓[/]" if plan.can_go else "[red]✗[/]"
        told = plan.why_not or f"{plan.held.reason}: {plan.readings} reading(s)"
        table.add_row(sign, *_cells(plan.held, told))
    console.print(table)
    for revision in revisions[:_SHOWN]:
        console.print(escape(_sentence(revision)), highlight=False)
    going = sum(plan.can_go for plan in plans)
    console.print(
        f"{action}: {going:,} of {len(plans):,} can go, "
        f"{sum(plan.readings for plan in plans if plan.can_go):,} readings{_rest(plans)}"
    )
    reasons = Counter(_reason(plan) for plan in plans if plan.why_not)
    for reason, count in reasons.most_common(5):
        console.print(f"  [red]✗[/] {count:,} × {escape(reason)}", highlight=False)


def _reason(plan: Plan) -> str:
    """The word for why a plan cannot go: that of the decoder, else that of the record."""
    word = plan.why_not.partition(":")[0]
    return word if _WORD.fullmatch(word) else plan.held.reason


def print_done(console: Console, done: Done | None) -> None:
    """Print what was done, or that nothing was."""
    if done is None:
        console.print("[yellow]nothing was changed; --yes does it[/]")
        return
    console.print(f"[green]✓[/] done: {done.records:,} records, {done.readings:,} readings")
    if done.left_to_others:
        console.print(f"{done.left_to_others:,} were decided on by another command meanwhile")
    if done.written_before:
        console.print(f"{done.written_before:,} had been put back by a run that did not end")


def _sentence(revision: Revision) -> str:
    place = revision.place
    before = "was never told" if revision.rank_before is None else (
        f"revision {revision.rank_before} counts {revision.count_before:,}"
    )  # fmt: skip
    return (
        f"{place.device}/{place.metric} {place.window} from {utc(place.start_ms)}: {before}, "
        f"revision {revision.rank} {revision.count:,}"
    )


def _cells(held: Held, last: str) -> tuple[str, ...]:
    reading: Mapping[str, Any] = reading_of(held)
    t_ms, value = reading.get("t_ms"), reading.get("value")
    return (
        utc(held.written_ms),
        escape(held.device),
        escape(str(reading.get("metric", ""))),
        "" if t_ms is None else utc(int(t_ms)),
        "" if value is None else escape(f"{value:.6g}" if isinstance(value, float) else str(value)),
        escape(last),
    )


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _rest(shown: Sequence[object]) -> str:
    return f" (the first {_SHOWN} shown; --json tells all)" if len(shown) > _SHOWN else ""

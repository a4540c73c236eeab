"""The end of the demo: numbers in, verdict and tables out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.audit import AuditReport
from streams.demo.receiver import Delivery
from streams.sim.sensors import Fault

Labels = Mapping[tuple[str, str], Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One identity: what must be equal, both numbers, and whether they are."""

    what: str
    expected: Any
    found: Any

    @property
    def holds(self) -> bool:
        """Whether they are equal."""
        return bool(self.expected == self.found)


@dataclass(frozen=True, slots=True)
class Detection:
    """Alerts against what is known to be strange."""

    labelled: int
    labelled_hit: int
    outside: int
    spikes: int
    spikes_found: int


@dataclass(frozen=True, slots=True)
class Latency:
    """From the receipt of a reading to the receipt of its webhook, in ms."""

    count: int
    p50_ms: float
    p99_ms: float
    p99_undisturbed_ms: float
    """Without the alerts of the time in which the worker was dead."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All that the demo found."""

    sent: dict[str, int]
    audit: AuditReport
    checks: list[Check]
    detection: Detection
    latency: Latency
    alerts: dict[str, int]
    twin: dict[str, Any] = field(default_factory=dict)
    worker_back_s: float = 0.0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every identity holds."""
        return all(check.holds for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        audit = self.audit.as_json()
        audit.pop("devices")
        return {**asdict(self), "audit": audit, "holds": self.holds}


def checks(sent: Counter[Fault], audit: AuditReport, twin: Mapping[str, Any]) -> list[Check]:
    """Return every identity that must hold."""
    copies = sent[Fault.DUPLICATE] // 2
    # QoS 1 may deliver again what was not yet acknowledged: only duplicates may be more.
    again = max(0, _of(audit, "duplicate") - copies)
    judged = sum(audit.classes.values())
    return [
        Check(
            "sent (+ delivered again) = accepted + duplicate + late + quarantined + rejected",
            sent.total() + again,
            judged + audit.refused_records,
        ),
        Check("readings in Kafka = those judged", audit.received, judged),
        Check("duplicates = sent twice + delivered again", copies + again, _of(audit, "duplicate")),
        Check("late = sent too late", sent[Fault.LATE], _of(audit, "late")),
        Check("quarantined = a year ahead", sent[Fault.WRONG_CLOCK], _of(audit, "quarantined")),
        Check("rejected = malformed", sent[Fault.MALFORMED], audit.refused_records),
        Check("accepted = all others", _others(sent), _of(audit, "accepted")),
        Check("every window counts its readings", [], audit.problems[:3]),
        Check("no window is left open", 0, audit.in_open_windows),
        Check("twin at edge = in the cloud", twin.get("edge"), twin.get("cloud")),
    ]


def _of(audit: AuditReport, name: str) -> int:
    return audit.classes[name]


def _others(sent: Counter[Fault]) -> int:
    refused = (Fault.MALFORMED, Fault.LATE, Fault.WRONG_CLOCK)
    return sent.total() - sum(sent[fault] for fault in refused) - sent[Fault.DUPLICATE] // 2


def detection(
    deliveries: Sequence[Delivery], labels: Labels, spikes: set[tuple[str, int]]
) -> Detection:
    """Compare firing alerts with labelled windows and injected spikes."""
    firing = [d.data for d in deliveries if d.data["state"] == "firing"]
    hit: set[tuple[str, str, int]] = set()
    outside = 0
    for alert in firing:
        key = (alert["device"], alert["metric"])
        if key not in labels:
            continue
        inside = [i for i, (a, b) in enumerate(labels[key]) if a <= alert["began_ms"] <= b]
        hit |= {(*key, i) for i in inside}
        outside += not inside
    found = {(a["device"], a["began_ms"]) for a in firing} & spikes
    total = sum(len(windows) for windows in labels.values())
    return Detection(total, len(hit), outside, len(spikes), len(found))


def latency(deliveries: Sequence[Delivery], dead_ns: tuple[int, int]) -> Latency:
    """Return quantiles over firing alerts; ``dead_ns`` is when the worker was dead."""
    firing = [d for d in deliveries if d.data["state"] == "firing"]
    every = np.asarray([d.latency_ms() for d in firing])
    begin_ms, end_ms = dead_ns[0] / 1e6 - 1000, dead_ns[1] / 1e6
    calm = np.asarray(
        [d.latency_ms() for d in firing if not begin_ms <= d.data["hops"]["received_ms"] <= end_ms]
    )
    if not len(every):
        return Latency(0, 0.0, 0.0, 0.0)
    p50, p99 = np.percentile(every, [50, 99])
    undisturbed = float(np.percentile(calm, 99)) if len(calm) else 0.0
    return Latency(len(every), round(float(p50), 1), round(float(p99), 1), round(undisturbed, 1))


def render(summary: Summary) -> RenderableType:
    """Return the summary for the terminal."""
    verdict = Table("identity", title="Does everything add up?")
    for side in ("expected", "found"):
        # Narrow enough that the identities keep most of 80 columns.
        verdict.add_column(side, max_width=12, overflow="fold")
    verdict.add_column("")
    for check in summary.checks:
        mark = "[green]✓[/]" if check.holds else "[red]✗[/]"
        verdict.add_row(check.what, _shown(check.expected), _shown(check.found), mark)
    found, waited = summary.detection, summary.latency
    facts = Table(show_header=False, title="What happened")
    facts.add_row("messages sent", f"{sum(summary.sent.values()):,}")
    facts.add_row("windows", f"{summary.audit.windows:,} ({summary.audit.in_windows:,} readings)")
    facts.add_row("labelled anomalies", f"{found.labelled_hit} of {found.labelled} windows hit")
    facts.add_row("alerts outside them", f"{found.outside}")
    facts.add_row("injected spikes", f"{found.spikes_found} of {found.spikes} found")
    facts.add_row("webhooks verified", ", ".join(f"{n} {s}" for s, n in summary.alerts.items()))
    facts.add_row(
        "reading to webhook",
        f"p50 {waited.p50_ms:.0f} ms, p99 {waited.p99_ms:.0f} ms "
        f"({waited.p99_undisturbed_ms:.0f} ms outside the kill)",
    )
    facts.add_row("worker after kill -9", f"back in {summary.worker_back_s:.1f} s, nothing lost")
    facts.add_row("the whole demo", f"{summary.seconds:.0f} s")
    return Group(verdict, facts, _twin(summary.twin))


def _twin(twin: Mapping[str, Any]) -> RenderableType:
    table = Table("field", "value", title=f"The merged twin of {twin.get('device', '?')}")
    for path, value in sorted(twin.get("fields", {}).items()):
        table.add_row(path, str(value))
    lines = [Text(f"conflict: {line}", style="yellow") for line in twin.get("conflicts", [])]
    return Group(table, *lines)


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:60] or "none"

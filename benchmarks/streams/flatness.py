"""Cost of a reading as devices become many: 1,000 to 1,000,000, as JSON and as frames."""

from __future__ import annotations

from benchmarks.report import Measure, at_most
from benchmarks.streams import headwater
from benchmarks.streams.broker import broker, load
from benchmarks.streams.compare import JSON, records, title
from benchmarks.streams.data import generated
from benchmarks.streams.outcome import Summary, summary
from benchmarks.streams.peers import Place
from benchmarks.streams.session import Session

_DEVICES = (1_000, 10_000, 100_000, 1_000_000)
_FORMS = {JSON: 2.0, 500: 6.0}
"""Rows per frame, and how many times the cost at 1,000 devices a reading may cost at most."""
_READINGS = 1_000_000
_TURNS = 2
"""Each device sends at least so often: the first reading of a device makes it known."""
_INTERVAL_MS = 10_000


def measure(session: Session) -> list[Measure]:
    """Return CPU per million and rate at each count of devices, and the curve's ratios."""
    measures: list[Measure] = []
    for rows, bound in _FORMS.items():
        curve = {devices: _point(session, devices, rows) for devices in _DEVICES}
        base = curve[_DEVICES[0]]
        form = "JSON" if rows == JSON else f"frames of {rows}"
        for devices, found in curve.items():
            name = f"{devices:,} devices, {form}"
            measures += [
                Measure(f"{name}: rate", round(found.per_s), "readings/s"),
                Measure(f"{name}: CPU per million", round(found.cpu_per_million_s, 2), "s"),
                Measure(f"{name}: peak memory", round(found.peak_mib), "MiB"),
            ]
            if devices != _DEVICES[0]:
                cost = found.cpu_per_million_s / base.cpu_per_million_s
                measures.append(at_most(f"{name}: CPU, of that at 1,000", cost, "times", bound))
    return measures


def _point(session: Session, devices: int, rows: int) -> Summary:
    data = generated(
        f"flat-{devices}",
        devices=devices,
        readings=max(_READINGS, _TURNS * devices),
        interval_ms=_INTERVAL_MS,
        seed=session.seed,
    )
    servers, work = session.folders(f"{data.name}-{rows}")
    outcomes = []
    with broker(servers) as kafka:
        total = load(kafka, records(data, rows))
        for number in range(session.runs):
            outcome = headwater.run(Place(kafka, servers, work), len(data), total)
            session.history.run(title(data, rows), number, outcome)
            session.console.print(f"{title(data, rows)}: {outcome.per_s:,.0f} readings/s")
            outcomes.append(outcome)
    return summary(outcomes)

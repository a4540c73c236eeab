"""The main comparison: one job, the same records, all systems in turn, medians and ratios."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report import Measure, at_least, at_most
from benchmarks.streams import headwater
from benchmarks.streams.broker import Record, broker, load
from benchmarks.streams.data import Data, frame_values, json_records
from benchmarks.streams.outcome import Outcome, Summary, summary
from benchmarks.streams.peers import Peer, Place, peers
from benchmarks.streams.session import Session
from benchmarks.streams.tables import table

JSON = 0
"""Rows per frame of the form that has no frames: one JSON object a record."""
FORMS = (JSON, 500, 50)
FAUST_SHARE = 30_000
QUIX_SHARE = 200_000
_KAFKA_STREAMS = "Kafka Streams on update"
_QUIX = "Quix Streams, current()"
_FAUST = "Faust"


@dataclass(frozen=True, slots=True)
class Targets:
    """What a data set is to reach: ratios to each peer for JSON, a rate for frames of 500."""

    kafka_streams: float
    kafka_streams_cpu: float
    frames_per_s: float


TARGETS = {"A": Targets(2.5, 1 / 3, 1_000_000), "B": Targets(4.0, 1 / 5, 500_000)}


def records(data: Data, rows: int) -> Iterator[Record]:
    """Yield readings as Kafka records: JSON, or frames of *rows*."""
    if rows == JSON:
        return ((p, key, value, []) for p, key, value in json_records(data))
    return ((p, None, value, headers) for p, value, headers in frame_values(data, rows))


def measure(session: Session, sets: Sequence[Data]) -> list[Measure]:
    """Run all systems over all forms of all data sets; return medians and ratios."""
    others = peers(FAUST_SHARE, QUIX_SHARE)
    about = {headwater.NAME: headwater.ABOUT, **{peer.name: peer.about for peer in others}}
    measures: list[Measure] = []
    for data in sets:
        measures.append(Measure(f"{data.name}: devices", len(data.names), ""))
        for rows in FORMS:
            found = _runs(session, data, rows, others)
            session.console.print(table(title(data, rows), about, found))
            measures += _figures(data, rows, about, found)
    return measures


def _runs(session: Session, data: Data, rows: int, others: Sequence[Peer]) -> dict[str, Summary]:
    """Fill a Kafka with one form of the data, then run every system in turn, and again."""
    servers, work = session.folders(f"{data.name}-{rows}")
    tell = session.console.print
    found: dict[str, list[Outcome]] = {}
    with broker(servers) as kafka:
        started = time.time()
        total = load(kafka, records(data, rows))
        tell(f"{title(data, rows)}: {total:,} records in {time.time() - started:.0f} s")
        place = Place(kafka, servers, work)
        for number in range(session.runs):
            outcomes = [headwater.run(place, len(data), total)]
            outcomes += [peer.run(place, len(data)) for peer in others if rows == JSON]
            for outcome in outcomes:
                found.setdefault(outcome.system, []).append(outcome)
                session.history.run(title(data, rows), number, outcome)
                tell(
                    f"  run {number + 1}, {outcome.system}: {outcome.per_s:,.0f} readings/s, "
                    f"{outcome.cpu_per_million_s:.1f} CPU s per million"
                )
    return {system: summary(outcomes) for system, outcomes in found.items()}


def title(data: Data, rows: int) -> str:
    """Name a form of a data set."""
    return f"{data.name}, " + ("JSON" if rows == JSON else f"frames of {rows}")


def _figures(
    data: Data, rows: int, about: Mapping[str, str], found: dict[str, Summary]
) -> list[Measure]:
    name = title(data, rows)
    targets = TARGETS.get(data.name)
    measures = []
    for system, medians in found.items():
        share = f", {medians.readings:,} readings" if medians.readings < len(data) else ""
        rate = f"{name}, {system} ({about[system]}{share})"
        if system == headwater.NAME and rows == 500 and targets:
            measures.append(at_least(rate, medians.per_s, "readings/s", targets.frames_per_s))
        else:
            measures.append(Measure(rate, round(medians.per_s), "readings/s"))
        measures += _costs(f"{name}, {system}", medians)
    if rows == JSON:
        measures += _ratios(name, found, targets)
    return measures


def _costs(name: str, medians: Summary) -> list[Measure]:
    return [
        Measure(f"{name}: CPU per million", round(medians.cpu_per_million_s, 2), "s"),
        Measure(f"{name}: peak memory", round(medians.peak_mib), "MiB"),
        Measure(f"{name}: changelog", round(medians.changelog_per_s), "bytes/s"),
        Measure(f"{name}: first record to all committed", round(medians.settled_s, 2), "s"),
    ]


def _ratios(name: str, found: dict[str, Summary], targets: Targets | None) -> list[Measure]:
    """Return the ratios Headwater : peer, with their targets where the data set has some."""
    ours = found[headwater.NAME]
    measures = []
    bounds = {}
    if targets:
        bounds = {_KAFKA_STREAMS: targets.kafka_streams, _QUIX: 20.0, _FAUST: 100.0}
    for system, theirs in found.items():
        if system == headwater.NAME:
            continue
        rate = f"{name}: rate, {headwater.NAME} : {system}"
        ratio = ours.per_s / theirs.per_s
        bound = bounds.get(system)
        measures.append(
            at_least(rate, ratio, "times", bound)
            if bound
            else Measure(rate, round(ratio, 3), "times")
        )
        cpu = f"{name}: CPU per million, {headwater.NAME} : {system}"
        spent = ours.cpu_per_million_s / theirs.cpu_per_million_s
        measures.append(
            at_most(cpu, spent, "times", targets.kafka_streams_cpu)
            if targets and system == _KAFKA_STREAMS
            else Measure(cpu, round(spent, 3), "times")
        )
    return measures

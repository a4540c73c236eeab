"""``headwater rules test``: cases for rules in a file, as promtool has them for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from streams.alerts.trial import Trial
from streams.errors import SettingsError
from streams.settings import Settings, load
from streams.settings.loader import explain_offences
from streams.settings.sections import Ms, Name, Positive, Section
from streams.testing import frame
from streams.toml_lines import read_toml

_TIMES = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|_)x(\d+)")
_MAX_READINGS = 100_000
_START_MS = 1_767_225_600_000
"""2026-01-01, a Thursday, in UTC."""
_SPAN = re.compile(r"(\d+)\s*(ms|s|min|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def span_ms(text: str) -> int:
    """Return a time span such as ``90s``, ``10min``, ``2h`` in milliseconds.

    :raises ValueError: if it is none.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time span; expected such as 90s, 10min, 2h, 1d")
    return int(found[1]) * _UNIT_MS[found[2]]


class CaseSeries(Section):
    """Readings of one series."""

    tenant: str = "default"
    site: str = "default"
    device: Name
    metric: Name
    every_ms: Positive = 60_000
    offset_ms: Ms = 0
    delay_ms: Ms = 0
    """How long after its event time each reading comes in: late ones correct windows."""
    values: Annotated[list[float | str], Field(min_length=1)]
    """Numbers, ``"20x15"`` for fifteen times 20, ``"_x3"`` for three that are missing."""

    @field_validator("values")
    @classmethod
    def _are_values(cls, values: list[float | str]) -> list[float | str]:
        for value in values:
            if isinstance(value, str) and not _TIMES.fullmatch(value):
                raise ValueError(f'{value!r} is no value; expected a number, "20x15" or "_x3"')
        return values

    def readings(self, start_ms: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each reading with the time at which it comes in."""
        t_ms = start_ms + self.offset_ms
        for given in self.values:
            value, times = (given, 1) if isinstance(given, float) else _repeated(given)
            for _ in range(times):
                if value is not None:
                    row = {"t_ms": t_ms, "value": value, "device": self.device}
                    row |= {"tenant": self.tenant, "site": self.site, "metric": self.metric}
                    yield t_ms + self.delay_ms, row
                t_ms += self.every_ms


def _repeated(text: str) -> tuple[float | None, int]:
    found = _TIMES.fullmatch(text)
    assert found is not None
    return None if found[1] == "_" else float(found[1]), int(found[2])


class Expectation(Section):
    """Which devices a rule fires on at a time."""

    after: str
    """Since the start, such as ``10min``."""
    rule: Name
    firing: list[str]
    """Names of devices."""

    @field_validator("after")
    @classmethod
    def _is_span(cls, text: str) -> str:
        span_ms(text)
        return text


class Case(Section):
    """One case."""

    name: str
    series: Annotated[list[CaseSeries], Field(min_length=1)]
    expect: Annotated[list[Expectation], Field(min_length=1)]


class Cases(Section):
    """A file of cases."""

    settings: Path | None = None
    """The settings with the rules, from the folder of this file; default: those in use."""
    tests: Annotated[list[Case], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one expectation."""

    case: str
    after: str
    rule: str
    expected: list[str]
    found: list[str]
    why: list[str]
    """The reasons of what fires."""

    @property
    def holds(self) -> bool:
        """Whether it is as expected."""
        return sorted(self.expected) == sorted(self.found)


def run_cases(path: Path) -> list[Verdict]:
    """Run the cases of a file.

    :raises SettingsError: if the file or its settings cannot be used; the message names the line.
    """
    if not path.exists():
        raise SettingsError(f"{path}: no such file")
    toml = read_toml(path)
    try:
        cases = Cases(**toml.values)
    except ValidationError as error:
        raise SettingsError(explain_offences(error, toml)) from error
    settings = load(path.parent / cases.settings if cases.settings is not None else None)
    names = {rule.name for rule in settings.rules}
    for i, case in enumerate(cases.tests):
        for j, expected in enumerate(case.expect):
            if expected.rule not in names:
                where = toml.where(("tests", i, "expect", j, "rule"))
                raise SettingsError(f"{where}: there is no rule {expected.rule!r}")
    return [verdict for case in cases.tests for verdict in _run(settings, case)]


def _run(settings: Settings, case: Case) -> Iterator[Verdict]:
    trial = Trial(settings)
    rows = sorted(
        (reading for series in case.series for reading in series.readings(_START_MS)),
        key=lambda reading: reading[0],
    )
    if len(rows) > _MAX_READINGS:
        raise SettingsError(f"{case.name!r} has {len(rows)} readings, at most {_MAX_READINGS}")
    at = 0
    for expected in sorted(case.expect, key=lambda one: span_ms(one.after)):
        until_ms = _START_MS + span_ms(expected.after)
        upto = next((i for i, (ms, _) in enumerate(rows) if ms > until_ms), len(rows))
        for ms, batch in groupby(rows[at:upto], key=lambda reading: reading[0]):
            trial.send(frame(*(row for _, row in batch), received_ms=ms), ms)
        at = max(at, upto)
        trial.pass_time(until_ms)
        found = trial.firing(expected.rule)
        yield Verdict(
            case.name,
            expected.after,
            expected.rule,
            expected.firing,
            [alert["device"] for alert in found],
            [alert["why"] for alert in found],
        )

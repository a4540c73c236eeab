"""What one run of one system came to, and medians over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_MILLION = 1e6
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run.

    ``seconds`` from the first record to the last one taken; ``settled_s`` from the first record
    until everything was flushed and committed; ``cpu_s`` is what the process used until then.
    """

    system: str
    readings: int
    seconds: float
    settled_s: float
    cpu_s: float
    peak_bytes: int
    changelog_bytes: int

    @property
    def per_s(self) -> float:
        """Readings per second."""
        return self.readings / self.seconds

    @property
    def cpu_per_million_s(self) -> float:
        """CPU seconds for a million readings."""
        return self.cpu_s / self.readings * _MILLION

    @property
    def peak_mib(self) -> float:
        """Greatest resident size in MiB."""
        return self.peak_bytes / _MIB

    @property
    def changelog_per_s(self) -> float:
        """Bytes of state written to Kafka per second of the whole run."""
        return self.changelog_bytes / self.settled_s


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of a system's runs, each figure by itself."""

    readings: int
    per_s: float
    cpu_per_million_s: float
    peak_mib: float
    settled_s: float
    changelog_per_s: float


def summary(runs: Sequence[Outcome]) -> Summary:
    """Return the medians of one system's runs."""
    return Summary(
        runs[0].readings,
        median(run.per_s for run in runs),
        median(run.cpu_per_million_s for run in runs),
        median(run.peak_mib for run in runs),
        median(run.settled_s for run in runs),
        median(run.changelog_per_s for run in runs),
    )

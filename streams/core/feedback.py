"""What operators have said of a series' alarms, and how far its threshold follows.

Each "not an anomaly" raises the bound of that series by a step, each "missed one" lowers it by the
same step, within declared limits. A label counts once, whatever how often it comes, and in any
order: the bound follows from the set of labels alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["not-an-anomaly", "missed"]
FALSE_ALARM: Kind = "not-an-anomaly"
MISSED: Kind = "missed"
KINDS = (FALSE_ALARM, MISSED)
SeriesName = tuple[str, str, str]
"""Tenant, device and metric."""


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody said of a stretch of a series, ``[since_ms, until_ms)`` in event time."""

    id: str
    tenant: str
    device: str
    metric: str
    kind: Kind
    since_ms: int
    until_ms: int
    author: str
    note: str
    at_ms: int
    removed: bool = False

    @property
    def series(self) -> SeriesName:
        """Of which it was said."""
        return self.tenant, self.device, self.metric

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FeedbackRules:
    """``step`` is the share by which one label moves a bound, ``most`` the factor it may reach,
    either way, ``labels`` how many are kept in one shard."""

    step: float
    most: float
    labels: int


class Feedback:
    """Labels by shard and series."""

    def __init__(self, rules: FeedbackRules) -> None:
        self._rules = rules
        self._shards: dict[int, dict[SeriesName, dict[str, Kind]]] = {}

    def __bool__(self) -> bool:
        return any(self._shards.values())

    def take(self, shard: int, label: Label) -> bool:
        """Take or take back a label; return False if the shard holds as many as it may."""
        of_shard = self._shards.setdefault(shard, {})
        held = of_shard.setdefault(label.series, {})
        if not label.removed:
            full = sum(map(len, of_shard.values())) >= self._rules.labels
            if full and label.id not in held:
                return False
            held[label.id] = label.kind
            return True
        held.pop(label.id, None)
        if not held:
            del of_shard[label.series]
        return True

    def factor(self, shard: int, series: SeriesName) -> float:
        """Return what a series' bound is multiplied with."""
        held = self._shards.get(shard, {}).get(series, {})
        kinds = list(held.values())
        return factor(kinds.count(FALSE_ALARM), kinds.count(MISSED), self._rules)

    def of_shard(self, shard: int) -> list[list[Any]]:
        """Return a shard's labels as plain rows."""
        held = self._shards.get(shard, {})
        return [[*series, labels] for series, labels in sorted(held.items())]

    def restore(self, shard: int, rows: Iterable[Any]) -> None:
        """Put back what :meth:`of_shard` gave."""
        found: dict[SeriesName, dict[str, Kind]] = {}
        for tenant, device, metric, labels in rows:
            found[tenant, device, metric] = dict(labels)
        self._shards[shard] = found


def factor(false_alarms: int, missed: int, rules: FeedbackRules) -> float:
    """Return what a bound is multiplied with after so many labels."""
    moved = (1.0 + rules.step) ** min(max(false_alarms - missed, -1_000), 1_000)
    return float(min(max(moved, 1.0 / rules.most), rules.most))


def label_of(held: Mapping[str, Any]) -> Label:
    """Return a label from plain values.

    :raises ValueError: naming what is missing or of another type.
    """
    kinds = Label.__dataclass_fields__
    if strange := held.keys() ^ kinds.keys():
        raise ValueError(f"a label without, or with a strange {min(strange)!r}")
    for name, wanted in kinds.items():
        expected = {"int": int, "bool": bool}.get(str(wanted.type), str)
        if type(held[name]) is not expected:
            raise ValueError(f"{name} of a label is {held[name]!r}")
    if held["kind"] not in KINDS:
        raise ValueError(f"the kind of a label is {held['kind']!r}; expected {' or '.join(KINDS)}")
    return Label(**held)

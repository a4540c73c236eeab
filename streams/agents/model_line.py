"""One entry of ``[[scoring]]`` on one partition: rows in, scores, drift and a trial out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from prometheus_client import Counter, Gauge

from models.core import drift
from models.core.drift import Drift
from models.reasons import words
from models.shelf import Live, Pair
from models.store import Card
from models.trials import Trial
from streams.agents.detectors import WHY_MAX
from streams.core.feature_rows import FeatureRow, FeatureRows, Result, Waiting
from streams.core.readings import Float64, Int64, Labels
from streams.core.results import Scores, WindowResults
from streams.core.selectors import Names, Selection, Selector
from streams.settings import Scoring
from streams.settings.generations import base_name

_ROWS = Counter(
    "headwater_model_rows", "Rows scored, by a champion or a challenger.", ["model", "role"]
)
_OVER = Counter("headwater_model_rows_over", "Rows over a model's threshold.", ["model", "role"])
_LOST = Counter(
    "headwater_model_rows_not_scored",
    "Rows given up without one of their features (incomplete), and results of devices beyond "
    "max_devices (refused).",
    ["model", "why"],
)
_DRIFT = Gauge(
    "headwater_model_drift_share",
    "Share of recent values outside of training, per feature, and of recent rows over the "
    "threshold (score): the mean of the devices of a partition.",
    ["model", "what", "partition"],
)
_VERSION = Gauge("headwater_model_version", "The version in use.", ["model", "role"])
_MAX_SCORE = 1e6
Device = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Told:
    """A score that is worth telling."""

    row: FeatureRow
    metric: str
    value: float
    score: float
    expected: float
    spread: float
    why: str


class Pairs(Protocol):
    """Where models come from: :class:`models.shelf.Shelf` in a worker."""

    def pair(self, name: str) -> Pair:
        """Return who decides, and who is scored beside it."""
        ...


class ModelLine:
    """Scores one model on the devices of one partition, or of a site."""

    def __init__(self, settings: Scoring, shelf: Pairs, partition: int | str) -> None:
        self._settings, self._shelf = settings, shelf
        self._partition = str(partition)
        self._selection = Selection(
            [Selector(tuple(settings.tenants), tuple(settings.sites), tuple(settings.devices))]
        )
        self._rows = FeatureRows((), settings.max_devices)
        self._ready: list[FeatureRow] = []
        self._over: set[tuple[str, Device]] = set()
        self._drift: dict[Device, Drift] = {}
        self.trial: Trial | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self._settings.name

    # -- rows in ----------------------------------------------------------------------------

    def take(self, found: WindowResults, offset: int) -> None:
        """Collect what a frame of ``aggregates`` has of the features."""
        champion = self._shelf.pair(self.name).champion
        if champion is None:
            return
        if champion.card.features != self._rows.features:
            self._begin(champion.card.features)
        for i in self._wanted(found).tolist():
            device = (found.tenant[i], found.device[i])
            feature = self._rows.features.index(found.metric[i])
            result = Result(
                site=found.site[i],
                start_ms=int(found.start_ms[i]),
                mean=float(found.mean[i]),
                received_ms=int(found.last_received_ms[i]),
                kafka_ms=int(found.kafka_ms[i]),
                offset=offset,
                row=i,
            )
            row = self._rows.take(device, feature, result)
            if row is not None:
                self._ready.append(row)

    def _begin(self, features: Sequence[str]) -> None:
        """Start anew: another model with other features."""
        self._rows = FeatureRows(features, self._settings.max_devices)
        self._drift.clear()

    def _wanted(self, found: WindowResults) -> Int64:
        """Return the final results of the window, of our features and devices."""
        window = [base_name(name) == self._settings.window for name in found.window.values]
        metric = [name in self._rows.features for name in found.metric.values]
        rows = np.flatnonzero(
            np.asarray(window, np.bool_)[found.window.codes]
            & np.asarray(metric, np.bool_)[found.metric.codes]
            & (found.rank >= 0)
            & (found.count > 0)
            & np.isfinite(found.mean)
        )
        names = (Names(found.tenant[i], found.site[i], found.device[i], "") for i in rows.tolist())
        return rows[np.asarray([len(self._selection.of(one)) > 0 for one in names], np.bool_)]

    # -- scores out -------------------------------------------------------------------------

    def judge(self) -> Scores | None:
        """Score all rows that became whole since the last call; return what is worth telling."""
        self._count_lost()
        pair, ready = self._shelf.pair(self.name), self._ready
        self._ready = []
        if pair.champion is None or not ready:
            return None
        rows = np.asarray([row.values for row in ready])
        score = pair.champion.scorer.score(rows)
        over = score >= pair.champion.card.threshold
        self._count("champion", pair.champion, over)
        if pair.challenger is not None:
            self._shadow(pair.champion, pair.challenger, rows, over)
        told = self._tell(pair.champion, ready, rows, score, over)
        told += self._follow(pair.champion.card, ready, rows, over)
        return _scores(told, f"{self.name}/{pair.champion.version}") if told else None

    def _shadow(self, champion: Live, challenger: Live, rows: Float64, over: Any) -> None:
        """Let the challenger score the same rows, and only count what it says."""
        if set(challenger.card.features) != set(champion.card.features):
            return
        order = [champion.card.features.index(name) for name in challenger.card.features]
        other = challenger.scorer.score(rows[:, order]) >= challenger.card.threshold
        self._count("challenger", challenger, other)
        now = (self.name, champion.version, challenger.version)
        if self.trial is None or (
            (self.trial.model, self.trial.champion, self.trial.challenger) != now
        ):
            self.trial = Trial(*now)
        self.trial = self.trial.plus(
            int(over.sum()), int(other.sum()), int((over & other).sum()), len(rows)
        )

    def _count(self, role: str, live: Live, over: Any) -> None:
        _ROWS.labels(self.name, role).inc(len(over))
        _OVER.labels(self.name, role).inc(int(over.sum()))
        _VERSION.labels(self.name, role).set(live.version)

    def _tell(
        self, live: Live, ready: Sequence[FeatureRow], rows: Float64, score: Float64, over: Any
    ) -> list[_Told]:
        metric = f"model.{self.name}"
        return [
            _Told(
                row=row,
                metric=metric,
                value=float(score[i]),
                score=self._relative(float(score[i]), live.card, over=bool(over[i])),
                expected=live.card.threshold,
                spread=live.card.step,
                why=words(live, rows[i], float(score[i]))[:WHY_MAX] if over[i] else "",
            )
            for i, row in enumerate(ready)
            if self._crosses(metric, row.device, over=bool(over[i]))
        ]

    def _relative(self, score: float, card: Card, *, over: bool) -> float:
        """Return a score on the scale of the rules: ``alarm_score`` at the threshold."""
        alarm = self._settings.alarm_score
        # A one-class SVM's threshold may be 0 or below.
        size = max(abs(card.threshold), card.step)
        found = alarm * (1.0 + (score - card.threshold) / size)
        # On which side of the bound it is has been decided on the rounded score.
        if over:
            return min(max(found, alarm), _MAX_SCORE)
        return max(min(found, float(np.nextafter(alarm, 0.0))), 0.0)

    def _follow(
        self, card: Card, ready: Sequence[FeatureRow], rows: Float64, over: Any
    ) -> list[_Told]:
        """Follow the drift of each device; return what crosses the bound."""
        low, high = np.asarray(card.ranges).T
        strange = np.column_stack([(rows < low) | (rows > high), over]).tolist()
        s, told, metric = self._settings, [], f"model.{self.name}.drift"
        for row, now in zip(ready, strange, strict=True):
            before = self._drift.get(row.device) or drift.fresh(len(card.features))
            known = self._drift[row.device] = drift.follow(before, now, s.drift_rows)
            worst = known.worst()
            share = known.shares[worst] if known.rows >= s.drift_rows else 0.0
            drifts = share >= s.drift_share
            if self._crosses(metric, row.device, over=drifts):
                told.append(
                    _Told(
                        row=row,
                        metric=metric,
                        value=share,
                        score=s.alarm_score * share / s.drift_share,
                        expected=0.0,
                        spread=s.drift_share,
                        why=_drift_words(card, worst, share) if drifts else "",
                    )
                )
        self._show_drift(card)
        return told

    def _crosses(self, metric: str, device: Device, *, over: bool) -> bool:
        """Whether a score is told: over its bound, or the first below it again."""
        was = (metric, device) in self._over
        if over and not was:
            self._over.add((metric, device))
        elif was and not over:
            self._over.discard((metric, device))
        return over or was

    def _show_drift(self, card: Card) -> None:
        mean = np.mean([known.shares for known in self._drift.values()], axis=0)
        for what, share in zip((*card.features, "score"), mean.tolist(), strict=True):
            _DRIFT.labels(self.name, what, self._partition).set(share)

    def _count_lost(self) -> None:
        _LOST.labels(self.name, "incomplete").inc(self._rows.incomplete)
        _LOST.labels(self.name, "refused").inc(self._rows.refused)
        self._rows.incomplete = self._rows.refused = 0

    # -- state ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return plain values, from which :meth:`restore` goes on."""
        return {
            "features": list(self._rows.features),
            "waiting": [
                [*device, held.start_ms, held.values, held.received_ms, held.kafka_ms]
                for device, held in self._rows.waiting.items()
            ],
            "over": [[metric, *device] for metric, device in sorted(self._over)],
            "drift": [[*device, one.rows, *one.shares] for device, one in self._drift.items()],
            "trial": None if self.trial is None else asdict(self.trial),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state` gave."""
        self._begin(tuple(state["features"]))
        for tenant, name, start_ms, values, received_ms, kafka_ms in state["waiting"]:
            held = Waiting(start_ms, list(values), received_ms, kafka_ms)
            self._rows.waiting[tenant, name] = held
        self._over = {(metric, (tenant, name)) for metric, tenant, name in state["over"]}
        for tenant, name, rows, *shares in state["drift"]:
            self._drift[tenant, name] = Drift(rows, tuple(shares))
        self.trial = None if state["trial"] is None else Trial(**state["trial"])


def _drift_words(card: Card, worst: int, share: float) -> str:
    if worst == len(card.features):
        return f"{share:.0%} of the last rows are over the bound: the model fits no more"
    low, high = card.ranges[worst]
    return (
        f"{share:.0%} of the last values of {card.features[worst]} are outside of what the model "
        f"has learnt, {low:.4g} to {high:.4g}: train it anew"
    )


def _scores(told: Sequence[_Told], detector: str) -> Scores:
    newest = [one.row.newest for one in told]

    def floats(name: str) -> Float64:
        return np.asarray([getattr(one, name) for one in told], np.float64)

    def integers(name: str) -> Int64:
        return np.asarray([getattr(one, name) for one in newest], np.int64)

    return Scores(
        tenant=Labels.of(one.row.device[0] for one in told),
        site=Labels.of(one.site for one in newest),
        device=Labels.of(one.row.device[1] for one in told),
        metric=Labels.of(one.metric for one in told),
        detector=Labels.constant(detector, len(told)),
        t_ms=integers("start_ms"),
        received_ms=integers("received_ms"),
        kafka_ms=integers("kafka_ms"),
        value=floats("value"),
        score=floats("score"),
        expected=floats("expected"),
        spread=floats("spread"),
        offset=integers("offset"),
        row=integers("row").astype(np.int32),
        why=Labels.of(one.why for one in told),
    )

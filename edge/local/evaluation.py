"""From readings to windows and alerts, by the cloud's engine, detector and rules. Pure.

The log of the cloud is replaced by the order in which readings are taken: each call is a record,
with a place that counts up from 0 and the log time that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from edge.model_scores import SiteModels
from streams.adapters import shard_codec
from streams.agents.derived import Derivations
from streams.agents.detection import Watch
from streams.agents.device_types import traits_by
from streams.agents.rule_definitions import anomaly_rules, rule_engine, window_rules
from streams.agents.window_alerts import alert_of
from streams.agents.window_definitions import definition_of
from streams.core.alert_states import Alert
from streams.core.engine import DeviceRules, Folded, LogRows, StreamEngine
from streams.core.placement import shard_of
from streams.core.readings import Readings
from streams.core.registry import NEVER
from streams.core.results import WindowResults
from streams.core.rule_pairs import Change
from streams.core.score_judge import ScoreJudge
from streams.errors import StateError
from streams.settings import Settings, Window

SCORES_KEY = "scores"
"""State key of the rules on scores; those on windows have one for each shard."""
CLOCK_KEY = "clock"
_NOTHING_STORED = -1
Alerts = list[dict[str, Any]]


@dataclass(slots=True)
class Outcome:
    """What came of some readings, or of time."""

    windows: list[WindowResults] = field(default_factory=list)
    alerts: Alerts = field(default_factory=list)
    """Those that changed, as they go into the topic ``alerts``, in order."""


class Evaluation:
    """Windows, detection and the local rules of one site."""

    def __init__(self, settings: Settings) -> None:
        """Begin with no readings and no alerts."""
        self._settings = settings
        scores = anomaly_rules(settings, at_edge=True)
        windows = folded_windows(settings)
        shards = settings.topics.shards
        self._engine = StreamEngine(
            [definition_of(window) for window in windows],
            DeviceRules(**settings.devices.model_dump()),
            shards,
        )
        self._derive = Derivations(windows)
        # Scores cost as much as windows do: without a rule on them nobody would see them.
        self._watch = Watch(settings.detection, shards) if scores else None
        self._scores = ScoreJudge(scores, traits_by(settings.types, settings.tags))
        self._rules = rule_engine(settings, window_rules(settings, at_edge=True))
        self.models = SiteModels((), _no_model)
        """Scores windows by trained models; for rules on scores."""
        self._shards = shards
        self._offset = -1
        self._now_ms = 0

    def take(self, readings: Readings, now_ms: int) -> Outcome:
        """Take the next readings.

        :param now_ms: log time; what is behind that of an earlier call counts as that.
        """
        out = self.pass_time(now_ms)
        n = len(readings)
        if not n:
            return out
        self._offset += 1
        rows = LogRows(
            readings,
            np.full(n, self._offset, np.int64),
            np.arange(n, dtype=np.int32),
            np.full(n, self._now_ms, np.int64),
        )
        for folded in self._engine.fold(rows):
            self._told(folded.results, out)
            self._detect(folded, out)
        return out

    def pass_time(self, now_ms: int) -> Outcome:
        """Let log time pass: windows of quiet devices close, silence is noticed."""
        self._now_ms = max(self._now_ms, now_ms)
        self._offset += 1
        out = Outcome()
        for alert, why in self._scores.resolve_gone(self._now_ms):
            out.alerts.append({**alert.as_json(), "why": why})
        self._alerted(self._scores.pass_time(self._now_ms), out)
        self._changed(self._rules.pass_time(self._now_ms, self._offset), out)
        self._told(self._engine.advance(self._now_ms, self._offset), out)
        return out

    def refused(self) -> int:
        """Return what the rules refused for a limit since this was asked last."""
        found, self._rules.refused = self._rules.refused, 0
        return found

    # -- state: what the rules remember; windows begin anew with a start -----------------------

    def keys_of(self, alerts: Iterable[Mapping[str, Any]]) -> set[str]:
        """Return the keys of the state that decides some alerts."""
        keys = {str(shard_of(one["tenant"], one["device"], self._shards)) for one in alerts}
        return keys | {SCORES_KEY, CLOCK_KEY} if keys else set()

    def keys(self) -> set[str]:
        """Return the keys of all state that has changed since it was taken last."""
        dirty = np.flatnonzero(self._rules.dirty_since != NEVER).tolist()
        return {SCORES_KEY, CLOCK_KEY, *map(str, dirty)}

    def state(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return state by key, for :meth:`restore`."""
        return {key: shard_codec.encode(self._state(key)) for key in keys}

    def _state(self, key: str) -> dict[str, Any]:
        if key == CLOCK_KEY:
            return {"clock_ms": self._now_ms, "shards": self._shards}
        if key == SCORES_KEY:
            return {"standing": self._scores.state()}
        return self._rules.snapshot(int(key))

    def restore(self, state: Mapping[str, bytes]) -> int:
        """Load what was stored, before anything is taken.

        Alerts of rules that are gone resolve with the next call.

        :returns: the log time that was stored; 0 if none was.
        :raises StateError: if it is damaged, of another version, or of another ``topics.shards``.
        """
        loaded = {key: shard_codec.decode(data) for key, data in state.items()}
        clock = loaded.pop(CLOCK_KEY, {"clock_ms": 0, "shards": self._shards})
        scores = loaded.pop(SCORES_KEY, {"standing": []})
        self._now_ms = int(clock["clock_ms"])
        if clock["shards"] != self._shards:
            raise StateError(
                f"the alerts of this edge were stored with topics.shards = {clock['shards']}, "
                f"and it is {self._shards}; it may not change while state is kept"
            )
        self._scores.restore(scores["standing"])
        for key, rules in loaded.items():
            self._rules.restore(int(key), _NOTHING_STORED, rules)
        return self._now_ms

    # -- inside --------------------------------------------------------------------------------

    def _detect(self, folded: Folded, out: Outcome) -> None:
        if self._watch is None or not len(folded.rows):
            return
        scores = self._watch.scores(folded, self._engine.registry, self._settings.metrics)
        if scores is not None:
            self._alerted(self._scores.observe(scores, self._now_ms), out)

    def _told(self, results: Sequence[WindowResults], out: Outcome) -> None:
        for part in results:
            if len(part):
                derived = self._derive(part)
                out.windows.append(derived)
                # As before each record of ``aggregates``.
                self._changed(self._rules.pass_time(self._now_ms, self._offset), out)
                self._changed(self._rules.take(derived, self._now_ms, self._offset), out)
                if self._watch is not None:
                    for scores in self.models.take(derived, self._offset):
                        self._alerted(self._scores.observe(scores, self._now_ms), out)

    def _alerted(self, changed: Sequence[Alert], out: Outcome) -> None:
        out.alerts += [alert.as_json() for alert in changed]

    def _changed(self, changed: Sequence[Change], out: Outcome) -> None:
        out.alerts += [alert_of(change) for change in changed]


def folded_windows(settings: Settings) -> list[Window]:
    """Return the window definitions that are folded at an edge."""
    looked_at = {rule.window for rule in settings.rules if rule.at_edge}
    looked_at |= {one.window for one in settings.scoring}
    globs = settings.edge.local.windows
    return [
        window
        for window in settings.windows
        if window.name in looked_at or any(fnmatchcase(window.name, glob) for glob in globs)
    ]


def _no_model(_device: str, _name: str) -> None:
    return None

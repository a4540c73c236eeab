"""A window definition that is new, folded from the log as if it had been there all along.

Theory of operation. Workers begin to count a definition at a marker in the log, and tell of each
device what begins behind all that it had shown by then. What begins earlier is told from here: the
same engine folds the same readings in the same order, from the first that is still there, and what
workers tell themselves is left out. Who tells a result does not matter to its bits: a revision
follows from the log alone. So this can be repeated, at any time and over any part that was told
before, and a later run only adds what has been corrected or closed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from streams.agents.changing import ALWAYS, Since, apart_ms, is_whole, since_now
from streams.agents.derived import Derivations
from streams.agents.window_definitions import definition_of
from streams.core.engine import DeviceRules, LogRows, StreamEngine
from streams.core.readings import Int64, Labels, concat_labels
from streams.core.results import WindowResults
from streams.settings import Settings, Window

ROWS_OF_A_FRAME = 4_000
_EVERYTHING = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Devices, per definition, that have windows from before the marker which are not final."""

    open: int = 0
    """One is not closed yet."""
    correctable: int = 0
    """All are closed, but one is within its horizon."""

    def __add__(self, other: Unfinished) -> Unfinished:
        return Unfinished(self.open + other.open, self.correctable + other.correctable)


class Rebuild:
    """The new windows of one partition.

    :param windows: the definitions that are new.
    :param marker: offset at which workers began with them; None if the log has no marker any more:
        then all that is folded counts as before it, and is told.
    :param whole_from_ms: no reading that is missing is later than this: windows that begin earlier
        are left out; :data:`ALWAYS` if the log is there from its first record on.
    """

    def __init__(
        self,
        settings: Settings,
        windows: Sequence[Window],
        marker: int | None = None,
        whole_from_ms: int = ALWAYS,
    ) -> None:
        self._windows = list(windows)
        self._definitions = {window.name: definition_of(window) for window in windows}
        self._engine = StreamEngine(
            list(self._definitions.values()),
            DeviceRules(**settings.devices.model_dump()),
            settings.topics.shards,
        )
        self._derive = Derivations(windows)
        self._marker = _EVERYTHING if marker is None else marker
        self._cut_ms = {
            name: whole_from_ms if whole_from_ms == ALWAYS else whole_from_ms + apart_ms(definition)
            for name, definition in self._definitions.items()
        }
        self._since: Since | None = None
        self._waiting: dict[tuple[str, tuple[str, ...]], list[WindowResults]] = {}
        self.told = 0
        """Results so far."""
        self.left_out = 0
        """Results of windows whose readings are not all there."""

    def fold(self, rows: LogRows) -> None:
        """Take the next rows of the log."""
        cut = int(np.searchsorted(rows.offset, self._marker))
        if cut:
            self._fold(rows.take(np.arange(cut)))
        if cut < len(rows):
            self._pass_marker()
            self._fold(rows.take(np.arange(cut, len(rows))))

    def advance(self, log_ms: int, offset: int) -> None:
        """Let log time pass up to that of the record at *offset*, whatever it holds."""
        if offset >= self._marker:
            self._pass_marker()
        self._keep(self._engine.advance(log_ms, offset))

    def take(self, least: int = 1) -> Iterator[WindowResults]:
        """Yield what there is to tell, once at least so many results of a kind have gathered."""
        for key, parts in list(self._waiting.items()):
            if sum(map(len, parts)) < least:
                continue
            del self._waiting[key]
            whole = concat_results(parts)
            for first in range(0, len(whole), ROWS_OF_A_FRAME):
                last = min(first + ROWS_OF_A_FRAME, len(whole))
                yield _compact(whole.take(np.arange(first, last)))

    def unfinished(self) -> Unfinished:
        """Return of how many devices, per definition, a later run may tell more."""
        found = Unfinished()
        reg = self._engine.registry
        keys = [(reg.tenants[t], n) for t, n in zip(reg.devices["tenant"], reg.names, strict=True)]
        watermark = reg.devices["max_t_ms"] - self._engine.rules.disorder_ms
        for name, since in (self._since or {}).items():
            definition = self._definitions[name]
            operator = self._engine.operators[list(self._definitions).index(name)]
            ms = np.asarray([since.get(key, ALWAYS) for key in keys], np.int64)
            seen = ms > ALWAYS
            closes_ms = definition.reach_ms - definition.horizon_ms
            is_open = seen & (watermark < ms + closes_ms) & operator.has_open(np.arange(len(keys)))
            correctable = seen & ~is_open & (watermark < ms + definition.reach_ms)
            found += Unfinished(int(is_open.sum()), int(correctable.sum()))
        return found

    def _fold(self, rows: LogRows) -> None:
        for folded in self._engine.fold(rows):
            self._keep(folded.results)

    def _pass_marker(self) -> None:
        if self._since is None:
            self._since = since_now(self._engine, self._windows, lambda shard: True)

    def _keep(self, emitted: Iterable[WindowResults]) -> None:
        for part in emitted:
            told = self._select(part)
            if len(told):
                self.told += len(told)
                ready = self._derive(told)
                self._waiting.setdefault((ready.window[0], tuple(ready.extra)), []).append(ready)

    def _select(self, results: WindowResults) -> WindowResults:
        """Leave out what workers tell, and what is not whole."""
        definition = self._definitions[results.window[0]]
        told = is_whole(results, definition, np.full(len(results), self._cut_ms[definition.name]))
        self.left_out += int((~told).sum())
        if self._since is not None:
            told &= ~is_whole(results, definition, self._since_of(results))
        return results if told.all() else results.take(np.flatnonzero(told))

    def _since_of(self, results: WindowResults) -> Int64:
        assert self._since is not None
        since = self._since[results.window[0]]
        keys = zip(results.tenant.to_list(), results.device.to_list(), strict=True)
        return np.asarray([since.get(key, ALWAYS) for key in keys], np.int64)


def concat_results(parts: Sequence[WindowResults]) -> WindowResults:
    """Join results that have the same further aggregates."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for field in fields(WindowResults):
        held = [getattr(part, field.name) for part in parts]
        if field.name == "extra":
            columns["extra"] = {n: np.concatenate([one[n] for one in held]) for n in held[0]}
        elif isinstance(held[0], Labels):
            columns[field.name] = concat_labels(held)
        else:
            columns[field.name] = np.concatenate(held)
    return WindowResults(**columns)


def _compact(results: WindowResults) -> WindowResults:
    names = [f.name for f in fields(WindowResults) if isinstance(getattr(results, f.name), Labels)]
    return replace(results, **{name: getattr(results, name).compact() for name in names})

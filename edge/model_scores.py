"""Final results of windows in, scores of trained models out: at a site, without a log.

Which model scores which window is ``[[scoring]]``, as in a worker; which version scores a device,
its twin says (:mod:`edge.models`), so that two versions may be in use at once. Pure but for
metrics. The local engine calls it; nothing here reads topics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.shelf import Live, Pair
from streams.agents.model_line import ModelLine
from streams.core.results import Scores, WindowResults
from streams.settings import Scoring

LiveOf = Callable[[str, str], Live | None]
"""Device and name of a model -> the version that is ready, if any."""
VERSIONS_MAX = 8
"""Versions of one entry that are followed at once; what was used longest ago is forgotten."""


class SiteModels:
    """The entries of ``[[scoring]]`` on the devices of a site.

    Rows that wait for a feature, and what is known of drift, are in memory only: after a restart,
    or with another version, they begin anew.

    :param live: :meth:`edge.models.EdgeModels.live`.
    """

    def __init__(self, scoring: Sequence[Scoring], live: LiveOf) -> None:
        self._scoring, self._live = tuple(scoring), live
        self._lines: list[dict[tuple[int, str], ModelLine]] = [{} for _ in scoring]

    def take(self, found: WindowResults, offset: int) -> list[Scores]:
        """Return the scores that are worth telling: over the threshold, and the first below it.

        :param found: results of the local engine; those that are not final are left out.
        :param offset: counts the calls; it stands in the scores.
        """
        told = []
        for at, one in enumerate(self._scoring):
            for live, devices in self._by_version(one.name, found):
                line = self._line(at, live)
                line.take(found.take(np.flatnonzero(np.isin(found.device.codes, devices))), offset)
                scores = line.judge()
                if scores is not None:
                    told.append(scores)
        return told

    def _by_version(self, name: str, found: WindowResults) -> list[tuple[Live, list[int]]]:
        held: dict[int, tuple[Live, list[int]]] = {}
        for code, device in enumerate(found.device.values):
            live = self._live(device, name)
            if live is not None:
                held.setdefault(id(live), (live, []))[1].append(code)
        return list(held.values())

    def _line(self, at: int, live: Live) -> ModelLine:
        lines = self._lines[at]
        version = live.version, live.card.sha256.get("model.onnx", "")
        line = lines.pop(version, None) or ModelLine(self._scoring[at], _One(live), "edge")
        lines[version] = line
        while len(lines) > VERSIONS_MAX:
            del lines[next(iter(lines))]
        return line


class _One:
    """A version that decides alone: challengers are scored where their champion is at home."""

    def __init__(self, live: Live) -> None:
        self._pair = Pair(live)

    def pair(self, _name: str) -> Pair:
        return self._pair

"""The agent on ``aggregates`` that scores trained models: rows in batches, challengers in shadow.

The means of one window's results are the features of a row (:mod:`streams.core.feature_rows`). All
rows that a fetch completes are scored in one call. Models come from the registry's folder, again
when it changes; which version has judged stands in each score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import orjson
from prometheus_client import Counter

from models.shelf import Live, Shelf
from streams.adapters import frames, results, shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.agents.model_line import ModelLine
from streams.core.registry import NEVER
from streams.core.results import Scores
from streams.errors import DecodeError
from streams.log import get_logger
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, is_time_marker
from streams.settings import Settings
from streams.topics import AGGREGATES, ANOMALIES, MODEL_TRIALS
from streams.version import VERSION

_log = get_logger(__name__)
_KEY = "models"
_REFUSED = Counter(
    "headwater_model_refused", "Versions of models that could not be loaded.", ["model"]
)


def make_scoring(settings: Settings) -> LogicFactory:
    """Return the factory of the logic that scores the models of ``[[scoring]]``."""
    shelf = Shelf(settings.models, _refused, _loaded)

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return ScoringLogic(settings, shelf, partition, partitions)

    return factory


class ScoringLogic:
    """Frames of ``aggregates`` in; scores of whole devices to ``anomalies``, trials out."""

    def __init__(self, settings: Settings, shelf: Shelf, partition: int, partitions: int) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._fingerprint = settings.fingerprint("scoring")
        self._headers = {
            "content-type": frames.CONTENT_TYPE,
            "hw-partitions": str(partitions).encode(),
        }
        self._lines = [ModelLine(one, shelf, partition) for one in settings.scoring]
        self._stamp = -1
        self._dirty_since = NEVER

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``aggregates``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        for record in records:
            if record.offset <= self._stamp or is_time_marker(record):
                continue
            self._dirty_since = min(self._dirty_since, record.offset)
            try:
                found = results.decode_windows(record.value or b"")
            except DecodeError as error:
                out.append(self._reject(record, error))
            else:
                for line in self._lines:
                    line.take(found, record.offset)
        return out + [made for line in self._lines for made in self._judge(line)]

    def dirty(self) -> Mapping[str, int]:
        """Return the one key, if it changed."""
        return {} if self._dirty_since == NEVER else {_KEY: self._dirty_since}

    def snapshot(self, key: str) -> bytes:
        """Return what waits, what is over its bound, how inputs drift, and the trials."""
        self._dirty_since = NEVER
        return shard_codec.encode({line.name: line.state() for line in self._lines})

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a snapshot; what belongs to models that are scored no more is forgotten."""
        self._stamp = stamp
        loaded = shard_codec.decode(state)
        for line in self._lines:
            if line.name in loaded:
                line.restore(loaded[line.name])

    def wants_time(self) -> bool:
        """Nothing waits for time."""
        return False

    def _judge(self, line: ModelLine) -> list[Produce]:
        before = line.trial
        scores = line.judge()
        out = [] if scores is None else [self._frame(scores)]
        if line.trial is not None and line.trial != before:
            trial = line.trial
            versions = (trial.model, trial.champion, trial.challenger, self._partition)
            key = "/".join(map(str, versions)).encode()
            out.append(Produce(MODEL_TRIALS, orjson.dumps(asdict(trial)), key, self._partition))
        return out

    def _frame(self, scores: Scores) -> Produce:
        value = results.encode(scores, code=VERSION, settings=self._fingerprint)
        return Produce(ANOMALIES, value, None, self._partition, self._headers)

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=AGGREGATES,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def _refused(model: str, why: str) -> None:
    _REFUSED.labels(model).inc()
    _log.error("model refused; what was in use goes on", model=model, why=why)


def _loaded(live: Live) -> None:
    _log.info("model loaded", model=live.name, version=live.version, kind=live.card.kind)

"""The agent on ``edge.alerts``: what rules at edges say goes where all alerts go, once.

An edge sends a batch again whose acknowledgement was lost, and one that was killed may say again
what it has said. An alert's states are told by its id, so each is told once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from prometheus_client import Counter

from streams.adapters import shard_codec
from streams.adapters.rejected import rejected_from_log
from streams.adapters.strict_json import loads
from streams.agents.editions import Editions
from streams.agents.stamps import Stamp
from streams.agents.telling import Teller
from streams.core.alert_states import FIRING, TOLD_BY_EDGE
from streams.errors import DecodeError
from streams.ports import LogicFactory, LogRecord, PartitionLogic, Produce, header, is_time_marker
from streams.settings import Settings
from streams.settings.applied import Document
from streams.topics import EDGE_ALERTS

STATE_KEY = "told"
_ALL = 0
"""The only shard."""
_AGAIN = Counter("headwater_alerts_of_edges_again", "Alerts of edges that were told before.")
_ID = re.compile(r"alt_[0-9a-f]{24}")
_STATES = ("firing", "resolved", "retracted")
_SEVERITIES = ("info", "warning", "critical")
_TEXTS = ("rule", "device", "metric", "why")
_TIMES = ("t_ms", "received_ms", "kafka_ms", "log_ms")
_NUMBERS = ("value", "score", "expected", "spread")
_MAX_TEXT = 1_024
_MAX_ENDPOINTS = 16
Turn = tuple[str, int]
"""A state, and how often a correction had made the alert fire again by then."""


def make_edge_alerting(
    settings: Settings, documents: Mapping[str, Document] | None = None
) -> LogicFactory:
    """Return the factory of the logic on alerts of edges.

    :param documents: what the topic ``config`` holds; more may come while the logic runs.
    """

    def factory(partition: int, partitions: int) -> PartitionLogic:
        return EdgeAlertLogic(settings, partition, Editions(settings, documents))

    return factory


class EdgeAlertLogic:
    """Lists of alerts in; life cycles to ``alerts``, messages to ``deliveries`` out."""

    def __init__(self, settings: Settings, partition: int, editions: Editions) -> None:
        self._partition = partition
        self._max_bytes = settings.gateway.max_rejected_bytes
        self._most = settings.alerts.max_edge_alerts
        self._editions = editions
        self._edition = editions.newest()
        self._teller = Teller(settings, partition, editions)
        self._stamp = Stamp()
        self._told: dict[str, list[Turn]] = {}

    def fold(self, records: Sequence[LogRecord]) -> list[Produce]:
        """Take the next records of ``edge.alerts``; see :class:`PartitionLogic`."""
        out: list[Produce] = []
        for record in records:
            if not self._stamp.takes(record.offset):
                continue
            if is_time_marker(record):
                self._change(record)
                continue
            self._stamp.touch(record.offset)
            try:
                alerts = decode(record)
            except DecodeError as error:
                out.append(self._reject(record, error))
                continue
            for alert in alerts:
                out += self._tell(alert)
        return out

    def dirty(self) -> Mapping[str, int]:
        """Return the one key, if it changed."""
        return {STATE_KEY: self._stamp.dirty_since} if self._stamp.is_dirty else {}

    def snapshot(self, key: str) -> bytes:
        """Return what was told of which alerts."""
        self._stamp.stored()
        return shard_codec.encode(
            {
                "config": self._edition.id,
                "kept": self._teller.kept(_ALL),
                "told": [[alert, *turns] for alert, turns in self._told.items()],
            }
        )

    def restore(self, key: str, stamp: int, state: bytes) -> None:
        """Load a snapshot."""
        loaded = shard_codec.decode(state)
        self._stamp.at = stamp
        self._edition = self._editions.of(loaded["config"])
        self._teller.restore(_ALL, loaded["kept"])
        self._told = {
            alert: [(state, turn) for state, turn in turns] for alert, *turns in loaded["told"]
        }

    def wants_time(self) -> bool:
        """Nothing waits for time."""
        return False

    def _change(self, record: LogRecord) -> None:
        """Take the routes that a marker names; what fires goes on by those it was told by."""
        after = self._editions.at(record)
        if after is None or after.revision <= self._edition.revision:
            return
        self._stamp.touch(record.offset)
        for alert, turns in self._told.items():
            if turns[-1][0] == FIRING:
                self._teller.keep(alert, _ALL, self._edition)
        self._edition = after

    def _tell(self, alert: dict[str, Any]) -> list[Produce]:
        turn: Turn = (alert["state"], alert.get("turn", 0))
        turns = self._told.pop(alert["id"], [])
        # The newest are at the end; the oldest are forgotten.
        self._told[alert["id"]] = turns
        if turn in turns:
            _AGAIN.inc()
            return []
        turns.append(turn)
        while len(self._told) > self._most:
            del self._told[next(iter(self._told))]
        return self._teller.tell(alert, self._edition)

    def _reject(self, record: LogRecord, error: DecodeError) -> Produce:
        return rejected_from_log(
            record,
            error,
            topic=EDGE_ALERTS,
            partition=self._partition,
            max_bytes=self._max_bytes,
        )


def decode(record: LogRecord) -> list[dict[str, Any]]:
    """Return the alerts of a record, as they are in ``alerts``.

    :raises DecodeError: if one is not what it should be, or of another site than the record.
    """
    parsed = loads(record.value or b"")
    site = {
        name: (header(record, f"hw-{name}") or b"").decode(errors="replace")
        for name in ("tenant", "site")
    }
    return [_checked(one, site) for one in (parsed if type(parsed) is list else [parsed])]


def _checked(one: Any, site: Mapping[str, str]) -> dict[str, Any]:
    if type(one) is not dict:
        raise DecodeError("bad-alert", f"found {type(one).__name__}; expected an object")
    for name, expected in site.items():
        _expect(one, name, one.get(name) == expected, repr(expected))
    _expect(one, "id", type(one.get("id")) is str and bool(_ID.fullmatch(one["id"])), "alt_...")
    _expect(one, "state", one.get("state") in _STATES, " or ".join(_STATES))
    _expect(one, "severity", one.get("severity") in _SEVERITIES, " or ".join(_SEVERITIES))
    for name in _TEXTS:
        text = one.get(name)
        _expect(one, name, type(text) is str and len(text) <= _MAX_TEXT, "a text")
    for name in ("began_ms", "fired_ms"):
        _expect(one, name, type(one.get(name)) is int, "milliseconds")
    _expect(one, "resolved_ms", type(one.get("resolved_ms")) in (int, type(None)), "ms or null")
    _expect(one, "turn", type(one.get("turn", 0)) is int, "a number")
    names = one.get(TOLD_BY_EDGE, [])
    are_names = type(names) is list and all(type(name) is str for name in names)
    _expect(one, TOLD_BY_EDGE, are_names and len(names) <= _MAX_ENDPOINTS, "names of endpoints")
    _expect(one, "sample", type(one.get("sample")) is dict, "an object")
    sample: dict[str, Any] = one["sample"]
    for name in _TIMES:
        _expect(sample, name, type(sample.get(name)) is int, "milliseconds")
    for name in _NUMBERS:
        number = sample.get(name)
        fits = number is None or (type(number) in (int, float) and math.isfinite(number))
        _expect(sample, name, fits, "a number or null")
    try:
        orjson.dumps(one)
    except orjson.JSONEncodeError as error:
        # Fields of later versions pass; but not nested deeper than they can be told.
        raise DecodeError("too-deep", "objects or lists are nested too deep") from error
    return one


def _expect(one: Mapping[str, Any], name: str, fits: object, expected: str) -> None:
    if not fits:
        found = f"{one[name]!r:.60}" if name in one else "nothing"
        raise DecodeError("bad-alert", f"{name}: found {found}; expected {expected}")

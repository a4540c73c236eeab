"""Kafka topics: every name, and how each is to be made (see docs/wire.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streams.settings import Topics

READINGS = "readings"
AGGREGATES = "aggregates"
ROLLUPS_PARTIAL = "rollups.partial"
ROLLUPS = "rollups"
ANOMALIES = "anomalies"
LATE = "late"
REJECTED = "rejected"
QUARANTINE = "quarantine"
REDRIVES = "redrives"
BACKFILL = "backfill"
LOSSES = "losses"
EDGE_STATUS = "edge.status"
EDGE_ALERTS = "edge.alerts"
TWIN_UPDATES = "twin.updates"
TWIN_STATE = "twin.state"
TWIN_DOWN = "twin.down"
COMMANDS = "commands"
COMMANDS_STATUS = "commands.status"
COMMANDS_DOWN = "commands.down"
ALERTS = "alerts"
ALERT_GROUPS = "alert.groups"
ALERT_PEERS = "alert.peers"
DELIVERIES = "deliveries"
SILENCES = "silences"
CONFIG = "config"
LABELS = "labels"
MODEL_TRIALS = "model.trials"

LOG_TIME = {"message.timestamp.type": "LogAppendTime"}
"""Records have the broker's time. Kafka would refuse those of a producer whose clock is an hour
ahead, and delete at once what one of the past has written."""
_HOUR_MS = 3_600_000
_SEGMENT_HOURS = 336
"""A record outlives its retention by its segment's age, a week by default: twice that. What was
decided about a record must be known for as long as the record itself."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be: its name, partition count, replication and broker settings."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def specs(settings: Topics) -> list[TopicSpec]:
    """Return every topic that Headwater uses.

    All have the same partition count, so that a device has one partition number everywhere.
    """
    retained = {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.retention_hours * _HOUR_MS),
        "max.message.bytes": "2097152",
        **LOG_TIME,
    }
    outlasting = {
        **retained,
        "retention.ms": str((settings.retention_hours + _SEGMENT_HOURS) * _HOUR_MS),
    }
    compacted = {
        "cleanup.policy": "compact",
        "segment.bytes": "67108864",
        "min.cleanable.dirty.ratio": "0.1",
        "max.compaction.lag.ms": "60000",
        "max.message.bytes": "2097152",
        **LOG_TIME,
    }
    kinds = {
        READINGS: retained,
        AGGREGATES: retained,
        ROLLUPS_PARTIAL: retained,
        ROLLUPS: retained,
        ANOMALIES: retained,
        LATE: retained,
        REJECTED: retained,
        QUARANTINE: retained,
        REDRIVES: outlasting,
        BACKFILL: retained,
        LOSSES: retained,
        EDGE_STATUS: compacted,
        EDGE_ALERTS: retained,
        TWIN_UPDATES: retained,
        TWIN_STATE: compacted,
        TWIN_DOWN: retained,
        COMMANDS: retained,
        COMMANDS_STATUS: retained,
        COMMANDS_DOWN: retained,
        ALERTS: compacted,
        ALERT_GROUPS: retained,
        ALERT_PEERS: retained,
        SILENCES: compacted,
        CONFIG: compacted,
        LABELS: compacted,
        MODEL_TRIALS: compacted,
        DELIVERIES: compacted,
    }
    return [
        TopicSpec(name, settings.partitions, settings.replication, config)
        for name, config in kinds.items()
    ]

"""What the gateway counts."""

from __future__ import annotations

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from streams.core.readings import Readings

RECEIVED = Counter("headwater_gateway_received_messages_total", "Messages from the broker")
RECEIVED_BYTES = Counter("headwater_gateway_received_bytes_total", "Their payloads")
READINGS = Counter("headwater_gateway_readings_total", "Readings confirmed by Kafka")
REJECTED = Counter(
    "headwater_gateway_rejected_messages_total", "Messages refused, by reason", ["reason"]
)
IGNORED = Counter(
    "headwater_gateway_ignored_messages_total", "Native messages that belong to other processes"
)
COPIES = Counter(
    "headwater_gateway_copied_messages_total",
    "Deliveries for overlapping or former filters, whose message is taken elsewhere",
)
BATCHES = Counter(
    "headwater_gateway_edge_batches_total", "Batches of edges by kind of answer", ["answer"]
)
UNANSWERED = Counter(
    "headwater_gateway_unsent_answers_total",
    "Answers to edges that were dropped, because too many waited for the broker; edges send again",
)
ACKED = Counter("headwater_gateway_acknowledged_messages_total", "Messages acknowledged")
SITE_READINGS = Counter(
    "headwater_gateway_site_readings_total", "Readings by site", ["tenant", "site"]
)
IN_FLIGHT = Gauge("headwater_gateway_in_flight_messages", "Messages taken and not yet confirmed")
IN_FLIGHT_BYTES = Gauge("headwater_gateway_in_flight_bytes", "Their payloads")
PAUSED = Gauge("headwater_gateway_reading_paused", "1 while the buffers are full")
KAFKA_READY = Gauge("headwater_gateway_kafka_ready", "1 while Kafka confirms in time")
MQTT_READY = Gauge("headwater_gateway_mqtt_ready", "1 while subscribed at a broker")
BROKERS_READY = Gauge("headwater_gateway_brokers_ready", "Brokers that are subscribed to")
CONNECTIONS = Counter("headwater_gateway_connections_total", "Connections to the broker")
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
KAFKA_SECONDS = Histogram(
    "headwater_gateway_kafka_seconds", "From send to confirmation", buckets=_BUCKETS
)
LAG_SECONDS = Histogram(
    "headwater_gateway_lag_seconds",
    "From the oldest message of a batch to its confirmation",
    buckets=_BUCKETS,
)

MAX_SITES = 1_000
_sites: set[tuple[str, str]] = set()


def count_sites(readings: Readings) -> None:
    """Count readings by site; sites beyond the first MAX_SITES count as ``other``."""
    pair = readings.tenant.codes.astype(np.int64) * len(readings.site.values)
    codes, counts = np.unique(pair + readings.site.codes, return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        tenant, site = divmod(code, len(readings.site.values))
        key = (readings.tenant.values[tenant], readings.site.values[site])
        if key not in _sites:
            if len(_sites) >= MAX_SITES:
                key = ("other", "other")
            else:
                _sites.add(key)
        SITE_READINGS.labels(*key).inc(count)

"""What the uplink counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from edge.uplink.window import Window

CONFIRMED = Counter("headwater_edge_confirmed_readings", "Readings that Kafka has confirmed.")
SENT_BYTES = Counter("headwater_edge_sent_bytes", "Bytes of batches, sendings again included.")
RESENT = Counter("headwater_edge_resent_batches", "Batches sent again.")
BAD_ACKS = Counter("headwater_edge_bad_acks", "Acknowledgements that are none.")
ROUND_TRIP = Histogram(
    "headwater_edge_round_trip_seconds",
    "From a batch to its acknowledgement.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
_IN_FLIGHT = Gauge("headwater_edge_in_flight_batches", "Batches that are not answered.")
_BATCH_ROWS = Gauge("headwater_edge_batch_rows", "Readings that a batch may have now.")
_FRESH = Gauge("headwater_edge_fresh_readings", "Fresh readings that wait to be sent.")


def show(window: Window, batch_rows: int, fresh_rows: int) -> None:
    """Show how it is."""
    _IN_FLIGHT.set(len(window))
    _BATCH_ROWS.set(batch_rows)
    _FRESH.set(fresh_rows)

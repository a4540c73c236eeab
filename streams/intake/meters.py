"""What intake over HTTP and CoAP counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

REQUESTS = Counter(
    "headwater_intake_requests_total",
    "Requests with readings by protocol and outcome",
    ["protocol", "outcome"],
)
READINGS = Counter(
    "headwater_intake_readings_total", "Readings that were durable when told so", ["protocol"]
)
UNDER_WAY = Gauge("headwater_intake_under_way_requests", "Requests that wait to be durable")
UNIDENTIFIED = Counter(
    "headwater_intake_unidentified_total", "Senders refused for their token or certificate"
)

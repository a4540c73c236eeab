"""Records of ``rejected``: the original bytes, capped, and why they were refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from streams.errors import DecodeError
from streams.ports import LogRecord, Produce
from streams.topics import REJECTED

MAX_DETAIL = 1_024
"""Bytes of the detail; messages of parsers can quote their input."""


@dataclass(frozen=True, slots=True)
class Original:
    """Refused bytes as far as they are kept: at most the cap, with whole length and hash."""

    kept: bytes
    length: int
    sha256: str

    @staticmethod
    def of(payload: bytes, max_bytes: int) -> Original:
        """Keep at most *max_bytes* of *payload*."""
        digest = hashlib.sha256(payload).hexdigest()
        return Original(payload[:max_bytes], len(payload), digest)


def rejected_record(
    payload: bytes | Original,
    error: DecodeError,
    *,
    source: str,
    received_ms: int,
    max_bytes: int,
    partition: int | None = None,
    tenant: str | None = None,
    site: str | None = None,
    device: str | None = None,
) -> Produce:
    """Return the record of ``rejected`` for refused bytes.

    :param source: ``mqtt:TOPIC`` or ``kafka:topic/partition/offset/row``.
    :param received_ms: when the bytes came in, milliseconds since the epoch.
    :param max_bytes: bytes of the payload that are kept.
    :param partition: ``None`` lets the producer choose.
    """
    original = payload if isinstance(payload, Original) else Original.of(payload, max_bytes)
    headers = {
        "hw-reason": error.reason.encode(),
        "hw-detail": error.detail.encode(errors="replace")[:MAX_DETAIL],
        "hw-source": source.encode(errors="replace"),
        "hw-length": b"%d" % original.length,
        "hw-sha256": original.sha256.encode(),
        "hw-received-ms": b"%d" % received_ms,
    }
    for name, value in (("tenant", tenant), ("site", site), ("device", device)):
        if value is not None:
            headers[f"hw-{name}"] = value.encode(errors="replace")
    return Produce(REJECTED, original.kept, partition=partition, headers=headers)


def rejected_from_log(
    record: LogRecord,
    error: DecodeError,
    *,
    topic: str,
    partition: int,
    max_bytes: int,
    tenant: str | None = None,
    site: str | None = None,
    device: str | None = None,
) -> Produce:
    """Return the record of ``rejected`` for a whole record of a Kafka topic."""
    return rejected_record(
        record.value or b"",
        error,
        source=f"kafka:{topic}/{partition}/{record.offset}",
        received_ms=record.timestamp,
        max_bytes=max_bytes,
        partition=partition,
        tenant=tenant,
        site=site,
        device=device,
    )

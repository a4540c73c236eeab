from __future__ import annotations

import hashlib

from streams.adapters.rejected import MAX_DETAIL, Original, rejected_record
from streams.errors import DecodeError
from streams.topics import REJECTED


def test_the_record_has_the_capped_bytes_and_the_whole_length_and_hash() -> None:
    payload = bytes(range(256)) * 4
    record = rejected_record(
        payload,
        DecodeError("malformed-json", "why"),
        source="mqtt:a/b",
        received_ms=1_700_000_000_000,
        max_bytes=100,
        tenant="acme",
    )
    assert record.topic == REJECTED
    assert record.value == payload[:100]
    assert record.headers == {
        "hw-reason": b"malformed-json",
        "hw-detail": b"why",
        "hw-source": b"mqtt:a/b",
        "hw-length": b"1024",
        "hw-sha256": hashlib.sha256(payload).hexdigest().encode(),
        "hw-received-ms": b"1700000000000",
        "hw-tenant": b"acme",
    }


def test_an_original_that_was_cut_before_keeps_its_length_and_hash() -> None:
    original = Original.of(b"x" * 50, 10)
    record = rejected_record(
        original, DecodeError("r", "d" * 5_000), source="s", received_ms=1, max_bytes=3
    )
    assert record.value == b"x" * 10
    assert record.headers["hw-length"] == b"50"
    assert len(record.headers["hw-detail"]) == MAX_DETAIL

"""Records that lie aside (``quarantine``, ``late``, ``rejected``): what they are, which are meant.

Pure. A held record is known by its origin, not by its place in the topic: a worker that reads
its log again after a crash writes the same record once more, and that is the same one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from streams.errors import HeadwaterError

_AGO = re.compile(r"(\d+)\s*(s|min|m|h|d)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Held:
    """One record that lies aside; ``written_ms`` is its time in its topic."""

    topic: str
    partition: int
    offset: int
    written_ms: int
    headers: Mapping[str, str]
    value: bytes

    @staticmethod
    def of(record: Any) -> Held:
        """Take a Kafka record."""
        headers = {name: text.decode(errors="replace") for name, text in record.headers}
        return Held(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            headers,
            record.value or b"",
        )

    @property
    def reason(self) -> str:
        """The short stable word."""
        return self.headers.get("hw-reason", "")

    @property
    def detail(self) -> str:
        """The sentence for a person."""
        return self.headers.get("hw-detail", "")

    @property
    def source(self) -> str:
        """``kafka:topic/partition/offset[/row]`` or ``mqtt:TOPIC``."""
        return self.headers.get("hw-source", "")

    @property
    def device(self) -> str:
        """Empty where it is not known."""
        return self.headers.get("hw-device", "")

    @property
    def identity(self) -> str:
        """What the record is known by, however often it was written.

        The place of origin; for a message that never reached Kafka its topic, receipt and
        hash. Equal bytes on one topic in one millisecond count as one message: rather one
        reading too few than one twice.
        """
        if self.source.startswith("kafka:"):
            return self.source
        received, digest = (
            self.headers.get(f"hw-{name}", "") for name in ("received-ms", "sha256")
        )
        return f"{self.source}@{received}/{digest[:16]}"

    @property
    def length(self) -> int:
        """Bytes of the whole original, of which ``value`` may be the beginning only."""
        told = self.headers.get("hw-length", "")
        return int(told) if told.isdigit() else len(self.value)

    @property
    def received_ms(self) -> int:
        """When the original came in; where it was not told, when the record was written."""
        told = self.headers.get("hw-received-ms", "")
        return int(told) if told.isdigit() else self.written_ms

    @property
    def is_cut(self) -> bool:
        """Whether the original was longer than what was kept."""
        return self.length > len(self.value)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which held records are meant. Globs for names; times are of the record, half-open."""

    device: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 1_000

    def takes(self, held: Held) -> bool:
        """Whether the conditions hold."""
        return (
            (self.device is None or fnmatchcase(held.device, self.device))
            and (self.reason is None or fnmatchcase(held.reason, self.reason))
            and (self.since_ms is None or held.written_ms >= self.since_ms)
            and (self.until_ms is None or held.written_ms < self.until_ms)
        )


def parse_time(text: str, now_ms: int) -> int:
    """Return a time as milliseconds since the epoch.

    :param text: ISO 8601 (UTC unless it says otherwise), milliseconds, or an age: ``90s``,
        ``15min``, ``2h``, ``7d``.
    :raises HeadwaterError: if it is none of these.
    """
    if text.isdigit():
        return int(text)
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise HeadwaterError(
            f"{text!r} is no time; expected 2026-01-31T12:00, milliseconds since 1970, or an "
            "age such as 15min, 2h, 7d"
        ) from error
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)
